// Junctions and what their signals cost people: one chosen junction, and the city beside its twin.
import { h } from "/app/dom.js";
import { age, current, measure, number, percent, t } from "/app/text.js";

export const SOURCES = ["adaptive", "local", "priority", "emergency", "operator"];

// By lightness as well as by hue; the letter in the panel says the same.
export const SOURCE_COLOURS = {
  adaptive: "#4cc3ff", local: "#93a4b5", priority: "#b79bff", emergency: "#ff6b6e", operator: "#f5d042",
};
const SILENT_MS = 15_000;
const BEHIND_MS = 60_000;
const FILLED_S = 300;
const ROWS = [
  ["delay_s", "s", 1], ["arrived_h", "/h", 0], ["stops", "", 2], ["queue", "", 1],
  ["side_p95_s", "s", 0], ["walk_p95_s", "s", 0],
];
const MORE_IS_BETTER = new Set(["arrived_h"]);

/** Who decides at a junction now; nothing is known of one that has long said nothing. */
export function sourceOf(store, id) {
  const view = store.junctions.get(id);
  return view && store.now() - view.at_ms < SILENT_MS ? view.source : "silent";
}

/** Map features of all junctions that have a place. */
export function features(store) {
  return Object.entries(store.city.junctions ?? {}).filter(([, one]) => one.lon !== null).map(([id, one]) => ({
    type: "Feature", geometry: { type: "Point", coordinates: [one.lon, one.lat] },
    properties: { id, source: sourceOf(store, id), changing: store.junctions.get(id)?.changing ?? false },
  }));
}

/** The side of the panel: a junction's name, who decides, what it shows. */
export function junctionSide(store, id) {
  const about = store.city.junctions[id];
  const view = store.junctions.get(id);
  const source = sourceOf(store, id);
  return [
    h("h2", { text: about.roads.slice(0, 2).join(" × ") || id }),
    h("p", { class: "sub", text: `${t("signals.junction")} · ${id.length > 24 ? `${id.slice(0, 24)}…` : id}` }),
    h("p", { class: "state" }, h("i", { class: `source ${source}` }), t(`signals.source.${source}`)),
    view && h("p", { class: "sub", text: t("signals.stage", { stage: view.stage, state: t(view.changing ? "signals.changing" : "signals.shown") }) }),
    view && h("ul", { class: "lamps", "aria-label": t("signals.lamps") }, about.groups.map((group, place) =>
      h("li", { class: `lamp ${view.lamps[place]}`, title: t(`signals.lamp.${view.lamps[place]}`) },
        h("i", { text: view.lamps[place].toUpperCase() }), group.id))),
  ].filter(Boolean);
}

/** The main part of the panel for a junction: why, and the traffic engineer's measures. */
export function junctionMain(store, id) {
  const view = store.junctions.get(id);
  if (!view) return [h("p", { class: "sub", text: t("signals.nothing") })];
  const zh = current() !== "en";
  const phases = view.phases;
  return [
    h("div", { class: "why" },
      h("h3", { text: t("signals.why") }),
      view.why ? h("p", { text: zh && view.why_zh ? view.why_zh : view.why }) : h("p", { text: t("signals.why.local") }),
      view.because.map((one) => h("button", { type: "button", class: "because", onclick: () => store.selectAlert(one.alert) },
        zh ? one.zh : one.en)),
      view.plan_ms ? h("p", { class: "sub", text: t("signals.plan.age", { age: age(store.now() - view.plan_ms) }) }) : null),
    phases && h("dl", { class: "measures" }, [
      [t("signals.arrivals_on_green"), phases.arrivals_on_green === null ? "–" : percent(phases.arrivals_on_green)],
      [t("signals.split_failures"), `${number(phases.split_failures)} / ${number(phases.phases)}`],
      [t("signals.phase_wait"), phases.phase_wait_s === null ? "–" : `${measure(phases.phase_wait_s)} s`],
      [t("signals.arrivals"), number(phases.arrivals)],
    ].map(([name, value]) => h("div", null, h("dt", { text: name }), h("dd", { text: value })))),
  ].filter(Boolean);
}

/** Mean time from an order to the scene, of dispatches that arrived in both runs. */
function response(live, twin) {
  const common = Object.keys(live.responses ?? {}).filter((order) => order in (twin?.responses ?? {}));
  if (!common.length) return null;
  const mean = (run) => common.reduce((sum, order) => sum + run.responses[order], 0) / common.length;
  const change = (mean(live) - mean(twin)) / mean(twin);
  return h("tr", null, h("th", { scope: "row", text: t("signals.response") }),
    h("td", { text: `${number(mean(live))} s` }), h("td", { text: `${number(mean(twin))} s` }),
    h("td", { class: Math.abs(change) < 0.02 ? "" : change < 0 ? "good" : "bad", text: `${change > 0 ? "+" : ""}${number(change * 100)}%` }));
}

/** Why the figures would mislead now, as a key of the texts; null if they do not. */
function misleading(live, twin) {
  const runs = twin ? [live, twin] : [live];
  if (twin && Math.abs(twin.through_ms - live.through_ms) > BEHIND_MS) return "signals.comparison.behind";
  if (runs.some((run) => run.window_s < FILLED_S || !run.arrived_h)) return "signals.comparison.filling";
  return null;
}

/** The city's signals beside the twin under its local plans; nothing where nobody measures. */
export function comparison(store) {
  const live = store.measured.get("live");
  if (!live) return [];
  const twin = store.measured.get("twin");
  const misleads = misleading(live, twin);
  if (misleads) {
    return [h("section", { class: "comparison", "aria-label": t("signals.comparison") },
      h("h3", { text: t("signals.comparison") }), h("p", { class: "sub", text: t(misleads) }))];
  }
  const value = (run, name, unit, digits) =>
    run && run[name] !== null ? `${number(run[name], digits)}${unit === "s" ? " s" : unit}` : "–";
  const row = ([name, unit, digits]) => {
    const known = twin && live[name] !== null && twin[name] !== null && twin[name] !== 0;
    const change = known ? (live[name] - twin[name]) / twin[name] : null;
    const good = change !== null && (change > 0) === MORE_IS_BETTER.has(name);
    return h("tr", null, h("th", { scope: "row", text: t(`signals.${name}`) }),
      h("td", { text: value(live, name, unit, digits) }), h("td", { text: value(twin, name, unit, digits) }),
      h("td", { class: change === null || Math.abs(change) < 0.02 ? "" : good ? "good" : "bad", text: change === null ? "–" : `${change > 0 ? "+" : ""}${number(change * 100)}%` }));
  };
  return [h("section", { class: "comparison", "aria-label": t("signals.comparison") },
    h("h3", { text: t("signals.comparison") }),
    h("table", null,
      h("thead", null, h("tr", null, h("th", { text: "" }), h("th", { scope: "col", text: t("signals.live") }),
        h("th", { scope: "col", text: t("signals.twin") }), h("th", { scope: "col", text: t("signals.difference") }))),
      h("tbody", null, [...ROWS.map(row), response(live, twin)])),
    h("p", { class: "sub", text: t("signals.comparison.why", { n: number(live.window_s / 60, 0) }) }))];
}
