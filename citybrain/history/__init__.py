"""History: what happened and when it was known, as Parquet by table, kind and UTC day."""
