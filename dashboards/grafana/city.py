"""The city's dashboard: is everything flowing, and where does it wait."""

from grafana_foundation_sdk.builders import dashboard

from citybrain.dashboards.grafana.panels import figure, lines


def city() -> dashboard.Dashboard:
    """From the device to the page, in the order in which a reading goes."""
    return (
        dashboard.Dashboard("citybrain · city")
        .uid("citybrain-city")
        .description("From a device to an alert: rates, waits and what is refused.")
        .tags(["citybrain"])
        .refresh("10s")
        .time("now-1h", "now")
        .timezone("browser")
        .readonly()
        .with_panel(figure("Readings", "short",
            "citybrain:readings:rate1m", "Counted by the engine, a second."))
        .with_panel(figure("Data age", "s",
            "citybrain:watermark_age_seconds:max",
            "Of the oldest shard: now less its closed windows."))
        .with_panel(figure("Not accounted for", "short",
            "citybrain_centre_unexplained_readings",
            "Produced less all that is accounted for; readings on the log count here."))
        .with_panel(figure("Refused", "short",
            "citybrain:dead_letters:rate5m", "Readings into the dead letter, a second."))
        .with_panel(figure("Active alerts", "short",
            "sum(citybrain_centre_active_alerts)", "Alerts of all levels."))
        .with_panel(figure("Healthy processes", "short",
            "sum(citybrain_healthy)", "Processes whose work goes on."))
        .with_row(dashboard.Row("Edge"))
        .with_panel(lines("Readings offered", "short",
            [("sum by (outcome) (rate(citybrain_edge_readings_total[1m]))", "{{outcome}}")],
            "By what became of them at the edge agent's door, a second.", stacked=True))
        .with_panel(lines("Backlog", "short",
            [("sum by (process) (citybrain_edge_backlog_readings)", "{{process}}")],
            "Stored on the agent's disk and not yet sent."))
        .with_panel(lines("Spool", "percentunit",
            [("citybrain_edge_spool_bytes / citybrain_edge_spool_limit_bytes", "{{process}}")],
            "How full the disk spool is; from 1 on the overflow policy holds."))
        .with_row(dashboard.Row("Engine"))
        .with_panel(lines("Readings by fate", "short",
            [('sum by (fate) (rate(citybrain_stage_readings_total{stage="rollup"}[1m]))',
              "{{fate}}")],
            "What the rollup stage did with them, a second.", stacked=True))
        .with_panel(lines("Lag", "short",
            [("sum by (stage) (citybrain_stage_lag_records)", "{{stage}}")],
            "Records that wait to be taken."))
        .with_panel(lines("Watermark age", "s",
            [("max by (stage) (citybrain_stage_watermark_age_seconds)", "{{stage}}")],
            "Now less what everybody has passed."))
        .with_panel(lines("Records taken", "short",
            [("sum by (stage) (rate(citybrain_stage_records_total[1m]))", "{{stage}}")],
            "Messages a second."))
        .with_panel(lines("Records written", "short",
            [("sum by (topic) (rate(citybrain_stage_outputs_total[1m]))", "{{topic}}")],
            "Messages a second, by topic."))
        .with_panel(lines("Time in a stage", "percentunit",
            [("sum by (stage, part) (rate(citybrain_stage_seconds_total[1m]))",
              "{{stage}} {{part}}")],
            "Seconds of work a second: 1 is a whole core.", stacked=True))
        .with_row(dashboard.Row("History and page"))
        .with_panel(lines("Rows into history", "short",
            [("sum by (table) (rate(citybrain_historian_rows_total[1m]))", "{{table}}")],
            "Rows a second, by table.", stacked=True))
        .with_panel(lines("Historian's lag", "short",
            [("sum by (topic) (citybrain_historian_lag_records)", "{{topic}}")],
            "Records not yet read into history."))
        .with_panel(lines("Data age by shard", "s",
            [("citybrain_centre_data_age_seconds", "{{shard}}")],
            "What the page shows at its foot."))
    )  # fmt: skip
