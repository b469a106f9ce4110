"""The few kinds of panel that the dashboards are made of."""

from collections.abc import Sequence

from grafana_foundation_sdk.builders import common, prometheus, stat, timeseries
from grafana_foundation_sdk.models.common import (
    GraphDrawStyle,
    GraphGradientMode,
    LegendDisplayMode,
    LegendPlacement,
    StackingMode,
    TooltipDisplayMode,
    VisibilityMode,
)
from grafana_foundation_sdk.models.dashboard import DataSourceRef

SOURCE = DataSourceRef(type_val="prometheus", uid="prometheus")


def lines(
    title: str, unit: str, targets: Sequence[tuple[str, str]], about: str, *, span: int = 8,
    stacked: bool = False,
) -> timeseries.Panel:  # fmt: skip
    """Curves over time. targets: (expression, legend)."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(about)
        .unit(unit)
        .datasource(SOURCE)
        .span(span)
        .height(8)
        .min(0)
        .draw_style(GraphDrawStyle.LINE)
        .line_width(1.5)
        .fill_opacity(20 if stacked else 6)
        .gradient_mode(GraphGradientMode.OPACITY)
        .show_points(VisibilityMode.NEVER)
        .legend(
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
    )
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(StackingMode.NORMAL))
    for place, (expression, legend) in enumerate(targets):
        panel = panel.with_target(query(expression, legend).ref_id("ABCDEF"[place]))
    return panel


def figure(title: str, unit: str, expression: str, about: str, *, span: int = 4) -> stat.Panel:
    """One number, now."""
    return (
        stat.Panel()
        .title(title)
        .description(about)
        .unit(unit)
        .datasource(SOURCE)
        .span(span)
        .height(4)
        .no_value("–")
        .with_target(query(expression, "").ref_id("A"))
    )


def query(expression: str, legend: str) -> prometheus.Dataquery:
    """A Prometheus query of a panel."""
    return prometheus.Dataquery().expr(expression).legend_format(legend or "__auto")
