"""The processes' dashboard: memory, CPU, restarts, health of each."""

from grafana_foundation_sdk.builders import dashboard

from citybrain.dashboards.grafana.panels import figure, lines


def processes() -> dashboard.Dashboard:
    """What every process of a city costs, and whether it goes on."""
    return (
        dashboard.Dashboard("citybrain · processes")
        .uid("citybrain-processes")
        .description("Memory, CPU, restarts and health of every process.")
        .tags(["citybrain"])
        .refresh("10s")
        .time("now-1h", "now")
        .timezone("browser")
        .readonly()
        .with_panel(figure("Processes", "short", 'sum(up{job="citybrain"})',
            "Processes that answer.", span=6))
        .with_panel(figure("Memory", "bytes", "sum(process_resident_memory_bytes)",
            "Resident memory of all.", span=6))
        .with_panel(figure("Cores", "short", "sum(rate(process_cpu_seconds_total[1m]))",
            "CPU seconds a second of all.", span=6))
        .with_panel(figure("Pages open", "short", "sum(citybrain_centre_clients)",
            "Open event streams of the operations page.", span=6))
        .with_panel(lines("Memory", "bytes",
            [("sum by (process) (process_resident_memory_bytes)", "{{process}}")],
            "Resident memory.", span=12))
        .with_panel(lines("CPU", "percentunit",
            [("sum by (process) (rate(process_cpu_seconds_total[1m]))", "{{process}}")],
            "CPU seconds a second: 1 is a whole core.", span=12))
        .with_panel(lines("Health", "short",
            [("citybrain_healthy", "{{process}}")],
            "1 while work goes on, 0 while something is waited for.", span=12))
        .with_panel(lines("Restarts", "short",
            [("changes(process_start_time_seconds[15m])", "{{process}}")],
            "Starts within a quarter of an hour.", span=12))
        .with_panel(lines("Open files", "short",
            [("sum by (process) (process_open_fds)", "{{process}}")],
            "File descriptors.", span=12))
        .with_panel(lines("Page", "short",
            [("rate(citybrain_centre_events_total[1m])", "events/s"),
             ("sum(rate(citybrain_centre_records_total[1m]))", "records/s"),
             ("rate(citybrain_centre_reloads_total[5m])", "reloads/s")],
            "What the centre reads, and what it tells its pages.", span=12))
    )  # fmt: skip
