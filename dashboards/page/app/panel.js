// The selected sensor: its values, what was forecast beside them, and how complete they are.
import { h, put } from "/app/dom.js";
import { columns, completeness, soonest, span } from "/app/series.js";
import { comparison, junctionMain, junctionSide } from "/app/signals.js";
import { icon } from "/app/symbols.js";
import { age, current, dayTime, hourMinute, measure, named, number, percent, t, unit } from "/app/text.js";

const RANGES = [0, 6, 24, 168];

export class Panel {
  constructor(node, store, prefs) {
    Object.assign(this, { node, store, prefs });
    this.hours = 0;
    this.links = new Map(store.city.roads.features.map((road) => [road.properties.id, road.properties]));
    this.words();
    store.addEventListener("select", ({ detail }) => {
      if ("sensor" in detail || "kind" in detail || "link" in detail || "junction" in detail) this.show();
    });
    store.addEventListener("change", ({ detail }) => this.take(detail));
    store.addEventListener("snapshot", () => (store.selected.sensor ? this.load() : this.show()));
    new ResizeObserver(() => this.resize()).observe(node);
    setInterval(() => this.tick(), 1_000);
  }

  words() {
    this.facts = h("div", { class: "panel-facts" });
    this.plot = h("div", { class: "plot" });
    this.note = h("div", { class: "plot-note", role: "status" });
    this.side = h("div", { class: "panel-side" });
    this.spoken = h("div", { class: "panel-words" });
    this.node.replaceChildren(this.side, h("div", { class: "panel-main" }, this.facts, this.plot, this.spoken, this.note));
    this.show();
  }

  show() {
    const { sensor, link } = this.store.selected;
    this.spoken.replaceChildren();
    this.chart?.destroy();
    this.chart = null;
    this.series = null;
    this.plot.replaceChildren();
    put(this.note, "");
    if (!sensor) {
      const junction = this.store.selected.junction;
      this.side.replaceChildren(...(junction ? junctionSide(this.store, junction) : link ? this.road(link) : this.hint()));
      this.facts.replaceChildren();
      this.spoken.replaceChildren(...(junction ? junctionMain(this.store, junction) : comparison(this.store)));
      return;
    }
    const one = this.store.city.sensors[sensor];
    const tab = (kind) =>
      h("button", { type: "button", class: "kind", "aria-pressed": String(kind === this.store.selected.kind),
        onclick: () => this.store.select({ kind }) }, named(this.store.city.kinds[kind]));
    this.side.replaceChildren(
      h("h2", { text: this.links.get(one.link)?.name || one.name || sensor }),
      h("p", { class: "sub", text: [named(this.store.city.zones[one.zone]), sensor].filter(Boolean).join(" · ") }),
      h("div", { class: "kinds", role: "group", "aria-label": t("panel.kinds") }, one.kinds.map(tab)),
    );
    this.figures = {};
    const figure = (name, more = "") => {
      const value = h("b", { text: "–" });
      this.figures[name] = value;
      return h("div", { class: `figure ${more}` }, h("span", { text: t(`panel.${name}`) }), value);
    };
    this.facts.replaceChildren(
      figure("value", "big"), figure("forecast"), figure("complete"), figure("age"),
      h("div", { class: "ranges", role: "group", "aria-label": t("panel.range") }, RANGES.map((hours) =>
        h("button", { type: "button", class: "range", "aria-pressed": String(hours === this.hours),
          onclick: () => { this.hours = hours; this.show(); } }, t(`range.${hours}`)))),
    );
    this.tick();
    this.load();
  }

  /** Signals have changed: say it, if that is what is shown. */
  refresh(signals) {
    const junction = this.store.selected.junction;
    const mine = junction ? signals.junctions.some((one) => one.junction === junction) : signals.measured.length > 0;
    if (mine && !this.spoken.contains(document.activeElement)) this.show();
  }

  hint() {
    return [h("div", { class: "hint" }, icon("pulse", 28), h("p", { text: t("panel.hint") }))];
  }

  road(id) {
    const road = this.links.get(id);
    const state = this.store.linkState(id);
    const live = this.store.links.get(id);
    return [
      h("h2", { text: road?.name || id }),
      h("p", { class: "sub", text: [named(this.store.city.zones[road?.zone]), id].filter(Boolean).join(" · ") }),
      h("p", { class: "state" }, h("i", { class: `swatch ${state}` }), t(`road.${state}`),
        live?.speed_kmh != null && state !== "unknown" ? ` · ${measure(live.speed_kmh)} km/h` : ""),
      h("p", { class: "sub", text: t("panel.no_sensor") }),
    ];
  }

  async load() {
    const { sensor, kind } = this.store.selected;
    if (!sensor || !kind) return;
    const query = new URLSearchParams({ sensor, kind });
    if (this.hours) query.set("hours", String(this.hours));
    const wanted = `${query}`;
    this.wanted = wanted;
    try {
      const answer = await fetch(`/api/series?${query}`);
      const body = await answer.json();
      if (this.wanted !== wanted) return;
      if (!answer.ok) throw new Error(body.error);
      this.series = body;
      this.draw();
    } catch (error) {
      if (this.wanted === wanted) put(this.note, t("panel.failed", { why: error.message }));
    }
  }

  /** A window of the shown series has closed, or was corrected. */
  take(change) {
    const { sensor, kind } = this.store.selected;
    if (!sensor) {
      if (change.signals && !this.store.selected.link) this.refresh(change.signals);
      if (this.store.selected.link && change.links.some((link) => link.link === this.store.selected.link)) this.show();
      return;
    }
    if (!this.series) return;
    const city = this.store.city;
    const shard = city.sensors[sensor].shard;
    let drawn = false;
    for (const window of change.windows) {
      if (window.kind !== kind || window.shard !== shard || window.window_ms !== this.series.window_ms) continue;
      const place = city.rosters[shard][kind].indexOf(sensor);
      const point = [window.start_ms, window.values[place], window.seen[place], window.expected];
      const points = this.series.points;
      const at = points.findIndex(([start]) => start >= window.start_ms);
      if (at < 0) points.push(point);
      else if (points[at][0] === window.start_ms) points[at] = point;
      else points.splice(at, 0, point);
      if (points.length > 12_000) points.shift();
      drawn = true;
    }
    // A new window mostly brings new forecasts: fetched again, since the stream leaves them out.
    if (drawn && city.kinds[kind].horizons_ms.length) {
      clearTimeout(this.later);
      this.later = setTimeout(() => this.load(), 3_000);
    }
    if (drawn) this.draw();
    this.tick();
  }

  async draw() {
    const data = columns(this.series);
    const kind = this.store.city.kinds[this.series.kind];
    const model = this.store.figures?.models.find((one) => one.kind === this.series.kind);
    const learnt = Object.keys(this.series.forecasts).length > 0;
    put(this.note, !this.series.points.length ? t(this.store.ready ? "panel.none" : "alerts.loading")
      : learnt || !kind.horizons_ms.length ? ""
        : model && model.fitted > 0 ? t("panel.forecast.soon") : t("panel.no_history"));
    this.tick();
    if (!this.series.points.length) return;
    const { default: uPlot } = await import("/vendor/uPlot.esm.js");
    if (this.chart && this.chart.language === current() && this.chart.of === this.wanted) {
      this.chart.setData(data);
      return;
    }
    this.chart?.destroy();
    this.plot.replaceChildren();
    this.chart = new uPlot(this.options(uPlot, kind), data, this.plot);
    this.chart.language = current();
    this.chart.of = this.wanted;
  }

  options(uPlot, kind) {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    const size = this.size();
    const zone = this.store.city.time_zone;
    const font = `12px ${getComputedStyle(document.body).fontFamily}`;
    const axis = { stroke: colour("--muted"), font, grid: { stroke: colour("--line-soft"), width: 1 }, ticks: { show: false } };
    const of = ` ${unit(kind.unit)}`;
    const shown = (u, value) => (value === null || value === undefined ? "–" : measure(value) + of);
    const label = (seconds, u) => {
      const span = u.scales.x.max - u.scales.x.min;
      return span > 172_800 ? dayTime(seconds * 1000) : hourMinute(seconds * 1000);
    };
    return {
      ...size,
      tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), zone),
      padding: [8, 12, 0, 0],
      cursor: { drag: { x: false, y: false }, points: { size: 7 } },
      legend: { live: true, markers: { width: 0 }, mount: (u, legend) => this.plot.append(legend) },
      scales: { x: { time: true, range: (u, low, high) => [Math.min(low, high - 900), high] }, y: { range: (u, low, high) => span(low, high, kind) } },
      axes: [
        { ...axis, values: (u, splits) => splits.map((v) => label(v, u)), space: 70 },
        { ...axis, size: 52, space: 28, values: (u, splits) => splits.map((v) => number(v, 2)) },
      ],
      series: [
        { label: t("panel.time"), value: (u, v) => (v === null ? "–" : dayTime(v * 1000)) },
        { label: t("panel.measured"), stroke: colour("--accent"), width: 2, value: shown, points: { show: false }, spanGaps: false },
        { label: t("panel.forecast"), stroke: colour("--forecast"), width: 1.5, dash: [5, 4], value: shown, points: { size: 5, fill: colour("--forecast") }, spanGaps: true },
        { label: t("panel.lower"), stroke: "transparent", width: 0, value: shown, points: { show: false }, spanGaps: true },
        { label: t("panel.upper"), stroke: "transparent", width: 0, value: shown, points: { show: false }, spanGaps: true },
      ],
      bands: [{ series: [4, 3], fill: colour("--forecast-band") }],
      hooks: {
        draw: [(u) => this.series && completeness(u, this.series, colour)],
        setCursor: [(u) => this.plot.classList.toggle("pointed", u.cursor.idx !== null && u.cursor.idx !== undefined)],
      },
    };
  }

  size() {
    const box = this.plot.getBoundingClientRect();
    return { width: Math.max(240, Math.floor(box.width)), height: Math.max(90, Math.floor(box.height)) };
  }

  resize() {
    this.chart?.setSize(this.size());
  }

  tick() {
    const { sensor, kind } = this.store.selected;
    if (!sensor || !kind || !this.figures) return;
    const row = this.store.city.kinds[kind];
    const values = this.store.values.get(sensor)?.[kind];
    const last = values?.last;
    const now = this.store.now();
    const old = !last || now - last.start_ms - last.window_ms > 6 * row.pane_ms;
    put(this.figures.value, last ? `${measure(last.value)} ${unit(row.unit)}` : "–");
    this.figures.value.parentNode.classList.toggle("stale", old);
    put(this.figures.age, last ? age(now - last.start_ms - last.window_ms) : "–");
    put(this.figures.complete, values ? `${percent(Math.min(1, values.seen / values.expected))} (${values.seen}/${values.expected})` : "–");
    const next = this.series && soonest(this.series.forecasts, now);
    put(this.figures.forecast, next ? `${measure(next[2])} ${unit(row.unit)} · ${hourMinute(next[0])}` : t("panel.no_forecast"));
  }
}
