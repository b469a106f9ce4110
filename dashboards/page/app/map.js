// The city's own road network, coloured by live state; stations and alerts on it.
import { h } from "/app/dom.js";
import { PALETTES, ROAD_STATES, SEVERITY, UNKNOWN, icon, NUMERALS } from "/app/symbols.js";
import { SOURCES, SOURCE_COLOURS, features } from "/app/signals.js";
import { mainKind } from "/app/store.js";
import { measure, named, t, unit } from "/app/text.js";

const PAINT_MS = 700;
const FONTS = ["Noto Sans CJK SC", "Noto Sans SC", "Noto Sans", "PingFang SC", "Microsoft YaHei", "sans-serif"];
const LOOK = {
  dark: { ground: "#0a0f14", casing: "#05080b", label: "#93a4b5", halo: "#0a0f14", zone: "#62758a", pill: "#18222d", edge: "#3b4c5e", ink: "#e8eef4", dim: "#8496a8", chosen: "#ffffff" },
  light: { ground: "#eef1f4", casing: "#ffffff", label: "#56636f", halo: "#eef1f4", zone: "#8a97a4", pill: "#ffffff", edge: "#b4c0cb", ink: "#16202a", dim: "#6b7884", chosen: "#101820" },
};

/** Shows a map in a node. Without WebGL it says so and everything else goes on. */
export async function showMap(node, store, prefs) {
  const box = h("div", { class: "map-box" });
  const tools = h("div", { class: "map-tools" });
  const legend = h("div", { class: "legend" });
  node.append(box, tools, legend);
  const view = new MapView(box, tools, legend, store, prefs);
  view.words();
  try {
    view.begin(await import("/vendor/maplibre-gl.mjs"));
  } catch (error) {
    view.missing(error);
  }
  return view;
}

class MapView {
  constructor(box, tools, legend, store, prefs) {
    Object.assign(this, { box, tools, legend, store, prefs });
    this.map = null;
    this.shown = "";
    this.painted = new Map(); // road -> the state it is painted in
    this.drawn = new Map(); // source -> what it holds, as text
    this.links = new Map(store.city.roads.features.map((road) => [road.properties.id, road]));
    this.places = zonePlaces(store.city);
  }

  begin(library) {
    const city = this.store.city;
    this.bounds = boundsOf(city);
    this.map = new library.Map({
      container: this.box,
      style: this.style(),
      bounds: this.bounds,
      fitBoundsOptions: { padding: 36 },
      attributionControl: false,
      localIdeographFontFamily: FONTS.join(", "),
      dragRotate: false,
      pitchWithRotate: false,
      touchPitch: false,
      renderWorldCopies: false,
      fadeDuration: 0,
      keyboard: true,
      locale: { "Map.Title": t("map.label") },
    });
    this.map.touchZoomRotate.disableRotation();
    this.map.addControl(new library.NavigationControl({ showCompass: false }), "top-right");
    this.map.addControl(new library.ScaleControl({ maxWidth: 120, unit: "metric" }), "bottom-right");
    this.map.on("load", () => this.loaded());
    this.map.on("click", (event) => this.click(event));
    for (const layer of ["roads", "stations", "alerts", "detectors", "junctions"]) {
      this.map.on("mouseenter", layer, () => (this.map.getCanvas().style.cursor = "pointer"));
      this.map.on("mouseleave", layer, () => (this.map.getCanvas().style.cursor = ""));
    }
    const store = this.store;
    store.addEventListener("snapshot", () => this.dirty(true));
    store.addEventListener("change", () => this.dirty(false));
    store.addEventListener("select", ({ detail }) => this.follow(detail));
    // Batched: a repaint at each message would keep a machine without a graphics card busy.
    setInterval(() => this.paint(), PAINT_MS);
  }

  missing(error) {
    console.info("no map:", error?.message ?? error);
    this.map = null;
    this.box.replaceChildren(
      h("div", { class: "no-map", role: "status" },
        h("strong", { text: t("map.missing") }), h("p", { text: t("map.missing.why") })),
    );
  }

  look() {
    return LOOK[this.prefs.theme];
  }

  colours() {
    return { ...PALETTES[this.prefs.palette], unknown: UNKNOWN[this.prefs.theme] };
  }

  style() {
    const empty = { type: "geojson", data: { type: "FeatureCollection", features: [] } };
    return {
      version: 8,
      sources: {
        roads: { type: "geojson", data: this.store.city.roads, promoteId: "id", tolerance: 0.2 },
        zones: { type: "geojson", data: this.zoneLabels() },
        detectors: { ...empty },
        stations: { ...empty },
        junctions: { ...empty },
        alerts: { ...empty },
        chosen: { ...empty },
      },
      layers: this.layers(),
    };
  }

  layers() {
    const look = this.look();
    const state = ["coalesce", ["feature-state", "state"], "unknown"];
    const colour = ["match", state, ...Object.entries(this.colours()).flat(), UNKNOWN[this.prefs.theme]];
    // Worse is wider, so that colour is not the only sign.
    const wide = ["match", state, "heavy-jam", 1.9, "jam", 1.55, "slow", 1.2, 1];
    const size = (base) => ["interpolate", ["exponential", 1.6], ["zoom"],
      11, ["*", base * 0.5, wide], 14, ["*", base * 1.25, wide], 17, ["*", base * 4.2, wide]];
    const offset = ["interpolate", ["exponential", 1.6], ["zoom"], 12, 0.6, 14, 1.6, 17, 5];
    const line = { "line-cap": "round", "line-join": "round" };
    const font = ["Noto Sans Regular"];
    return [
      { id: "ground", type: "background", paint: { "background-color": look.ground } },
      { id: "chosen-road", type: "line", source: "chosen", layout: line,
        filter: ["==", ["geometry-type"], "LineString"],
        paint: { "line-color": look.chosen, "line-width": ["interpolate", ["exponential", 1.6], ["zoom"], 11, 5, 14, 9, 17, 24], "line-offset": offset, "line-opacity": 0.85 } },
      { id: "casing", type: "line", source: "roads", layout: line,
        paint: { "line-color": look.casing, "line-width": ["interpolate", ["exponential", 1.6], ["zoom"], 11, 1.6, 14, 4, 17, 13], "line-offset": offset } },
      { id: "roads", type: "line", source: "roads", layout: line,
        paint: { "line-color": colour, "line-width": size(1.5), "line-offset": offset } },
      { id: "names", type: "symbol", source: "roads", minzoom: 13.6,
        filter: [">", ["get", "length_m"], 60],
        layout: { "symbol-placement": "line", "text-field": ["get", "name"], "text-size": 12, "text-font": font, "symbol-spacing": 420, "text-padding": 12, "text-max-angle": 30 },
        paint: { "text-color": look.label, "text-halo-color": look.halo, "text-halo-width": 2.2 } },
      { id: "zones", type: "symbol", source: "zones", maxzoom: 14.4,
        layout: { "text-field": ["get", "label"], "text-size": 15, "text-font": font, "text-letter-spacing": 0.12, "text-max-width": 9, "text-allow-overlap": false, "text-padding": 8 },
        paint: { "text-color": look.zone, "text-halo-color": look.halo, "text-halo-width": 2.2 } },
      { id: "detectors", type: "circle", source: "detectors", minzoom: 13.2,
        paint: { "circle-radius": ["interpolate", ["linear"], ["zoom"], 13, 1.5, 17, 4.5], "circle-color": ["case", ["get", "stale"], look.edge, look.ink], "circle-stroke-color": look.casing, "circle-stroke-width": 1, "circle-opacity": 0.6, "circle-stroke-opacity": 0.8 } },
      { id: "junctions", type: "circle", source: "junctions", minzoom: 11.5,
        paint: { "circle-radius": ["interpolate", ["linear"], ["zoom"], 12, 3.5, 15, 7, 17, 11], "circle-color": look.ground, "circle-stroke-color": ["match", ["get", "source"], ...Object.entries(SOURCE_COLOURS).flat(), look.edge], "circle-stroke-width": ["match", ["get", "source"], "emergency", 4.5, "local", 2, 3] } },
      { id: "stations", type: "symbol", source: "stations",
        layout: { "icon-image": ["case", ["get", "stale"], "pill-stale", "pill"], "icon-text-fit": "both", "icon-text-fit-padding": [3, 6, 3, 6], "text-field": ["get", "label"], "text-size": 12, "text-font": font, "icon-allow-overlap": false, "text-allow-overlap": false, "symbol-sort-key": ["get", "order"] },
        paint: { "text-color": ["case", ["get", "stale"], look.dim, look.ink] } },
      { id: "chosen-point", type: "circle", source: "chosen",
        filter: ["==", ["geometry-type"], "Point"],
        paint: { "circle-radius": 19, "circle-color": "rgba(0,0,0,0)", "circle-stroke-color": look.chosen, "circle-stroke-width": 2.5 } },
      { id: "alerts", type: "symbol", source: "alerts",
        layout: { "icon-image": ["concat", "severity-", ["get", "severity"]], "icon-allow-overlap": true, "icon-ignore-placement": true, "symbol-sort-key": ["-", 0, ["get", "severity"]] },
        paint: { "icon-opacity": ["case", ["get", "acknowledged"], 0.62, 1] } },
    ];
  }

  loaded() {
    for (const severity of [1, 2, 3, 4]) {
      this.map.addImage(`severity-${severity}`, drawMark(severity), { pixelRatio: 2 });
    }
    this.drawPills();
    this.ready = true;
    this.dirty(true);
    this.paint();
    this.follow(this.store.selected);
    this.box.dataset.painted = "true";
  }

  drawPills() {
    const look = this.look();
    for (const [name, edge] of [["pill", look.edge], ["pill-stale", look.casing]]) {
      if (this.map.hasImage(name)) this.map.removeImage(name);
      this.map.addImage(name, drawPill(look.pill, edge), {
        pixelRatio: 2, stretchX: [[12, 28]], stretchY: [[12, 28]], content: [6, 6, 34, 34],
      });
    }
  }

  /** Theme, palette or language changed. */
  restyle() {
    this.words();
    if (!this.map) return;
    if (!this.ready) return;
    this.drawPills();
    for (const layer of this.layers()) {
      for (const [name, value] of Object.entries(layer.paint ?? {})) {
        this.map.setPaintProperty(layer.id, name, value);
      }
    }
    this.map.getSource("zones").setData(this.zoneLabels());
    this.dirty(true);
    this.paint();
  }

  words() {
    if (!this.map && this.box.querySelector(".no-map")) this.missing("words");
    const city = this.store.city;
    const choice = h("select", { id: "shown-kind", onchange: () => { this.shown = choice.value; this.dirty(true); this.paint(); } },
      h("option", { value: "", text: t("map.overview") }),
      Object.entries(city.kinds).map(([name, kind]) =>
        h("option", { value: name, text: `${named(kind)} (${unit(kind.unit)})` })));
    choice.value = this.shown;
    this.tools.replaceChildren(
      h("label", { class: "tool", for: "shown-kind" }, h("span", { text: t("map.stations") }), choice),
      h("button", { class: "tool button", type: "button", title: t("map.whole"), "aria-label": t("map.whole"),
        onclick: () => this.map?.fitBounds(this.bounds, { padding: 36, duration: 500 }) }, icon("frame")),
    );
    const colours = this.colours();
    this.legend.replaceChildren(...ROAD_STATES.map((state) =>
      h("span", { class: "legend-item" },
        h("i", { class: `swatch ${state}`, style: { background: colours[state] } }), t(`road.${state}`))),
      ...(Object.keys(city.junctions ?? {}).length ? SOURCES.slice(0, 4) : []).map((source) =>
        h("span", { class: "legend-item" }, h("i", { class: `source ${source}` }), t(`signals.legend.${source}`))));
  }

  dirty(all) {
    this.pending = true;
    if (all) this.all = true;
  }

  paint() {
    if (!this.ready || document.hidden) return;
    this.expire();
    if (!this.pending) return;
    this.pending = false;
    const store = this.store;
    const links = this.all ? this.links.keys() : store.changedLinks;
    for (const id of links) {
      const state = store.linkState(id);
      if (this.links.has(id) && this.painted.get(id) !== state) {
        this.painted.set(id, state);
        this.map.setFeatureState({ source: "roads", id }, { state });
      }
    }
    store.changedLinks.clear();
    this.all = false;
    const stations = [];
    const detectors = [];
    const now = store.now();
    for (const [id, sensor] of Object.entries(store.city.sensors)) {
      const kind = this.shown ? (sensor.kinds.includes(this.shown) ? this.shown : null) : mainKind(sensor);
      const values = kind && store.values.get(id)?.[kind];
      const last = values?.last ?? null;
      const stale = !last || now - last.start_ms - last.window_ms > 6 * store.city.kinds[kind].pane_ms;
      const point = (properties) => ({ type: "Feature", geometry: { type: "Point", coordinates: [sensor.lon, sensor.lat] }, properties: { id, stale, ...properties } });
      const isStation = this.shown ? kind !== null : !sensor.link;
      if (isStation) {
        const label = last ? `${measure(last.value)} ${unit(store.city.kinds[kind].unit)}` : "–";
        stations.push(point({ label, order: this.shown ? 1 : 0 }));
      } else detectors.push(point({}));
    }
    this.set("stations", stations);
    this.set("detectors", detectors);
    this.set("junctions", features(store));
    this.set("alerts", [...store.alerts.values()].filter((a) => a.active && !a.suppressed_by && a.shelved_until_ms <= now)
      .map((alert) => ({ alert, at: this.placeOf(alert) }))
      .filter(({ at }) => at)
      .map(({ alert, at }) => ({ type: "Feature", geometry: { type: "Point", coordinates: at }, properties: { id: alert.id, severity: alert.severity, acknowledged: alert.acknowledged } })));
  }

  /** Roads whose state has run out turn unknown by themselves. */
  expire() {
    const now = this.store.now();
    if (now - (this.expired ?? 0) < 5_000) return;
    this.expired = now;
    for (const link of this.store.links.values()) {
      if (link.expires_ms <= now) this.store.changedLinks.add(link.link);
    }
    this.pending = true;
  }

  /** Gives a source new features, if they are new: every setData costs a whole repaint. */
  set(name, features) {
    const text = JSON.stringify(features);
    if (this.drawn.get(name) === text) return;
    this.drawn.set(name, text);
    this.map.getSource(name).setData({ type: "FeatureCollection", features });
  }

  placeOf(alert) {
    const { lon, lat, sensor, link, zone } = alert.place;
    if (lon !== null && lat !== null && lon !== undefined) return [lon, lat];
    const one = this.store.city.sensors[sensor];
    if (one) return [one.lon, one.lat];
    const road = this.links.get(link);
    if (road) return middle(road.geometry.coordinates);
    return this.places.get(zone) ?? this.places.get("");
  }

  click(event) {
    const near = [[event.point.x - 6, event.point.y - 6], [event.point.x + 6, event.point.y + 6]];
    const hit = (layer) => this.map.queryRenderedFeatures(near, { layers: [layer] })[0]?.properties.id;
    const alert = hit("alerts");
    const sensor = hit("stations") ?? hit("detectors");
    const junction = hit("junctions");
    const road = hit("roads");
    if (alert) this.store.selectAlert(alert);
    else if (junction) this.store.selectJunction(junction);
    else if (sensor) this.store.selectSensor(sensor, this.shown);
    else if (road) this.store.selectLink(road);
  }

  /** Shows what was selected, from wherever it was selected. */
  follow(what) {
    if (!this.ready) return;
    const { alert, sensor, link, junction } = this.store.selected;
    const chosen = [];
    const road = this.links.get(link);
    if (road) chosen.push(road);
    const record = alert && this.store.alerts.get(alert);
    const one = this.store.city.sensors[sensor] ?? this.store.city.junctions?.[junction];
    const at = record ? this.placeOf(record) : one ? [one.lon, one.lat] : road && middle(road.geometry.coordinates);
    if (at) chosen.push({ type: "Feature", geometry: { type: "Point", coordinates: at }, properties: {} });
    this.set("chosen", chosen);
    if (at && what && "alert" in what && alert) {
      const zoom = record.place.link || record.place.sensor ? Math.max(this.map.getZoom(), 15.2) : this.map.getZoom();
      const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
      this.map.flyTo({ center: at, zoom, duration: calm ? 0 : 700 });
    }
  }

  zoneLabels() {
    return {
      type: "FeatureCollection",
      features: [...this.places].filter(([zone]) => zone).map(([zone, at]) => ({
        type: "Feature", geometry: { type: "Point", coordinates: at },
        properties: { label: named(this.store.city.zones[zone]) },
      })),
    };
  }
}

function drawMark(severity) {
  const look = SEVERITY[severity];
  const canvas = new OffscreenCanvas(60, 60);
  const pen = canvas.getContext("2d");
  pen.translate(6, 6);
  pen.scale(2, 2);
  const path = new Path2D(look.path);
  pen.lineJoin = "round";
  pen.lineWidth = 3;
  pen.strokeStyle = "rgba(6, 10, 14, 0.9)";
  pen.stroke(path);
  pen.fillStyle = look.colour;
  pen.fill(path);
  pen.fillStyle = look.ink;
  pen.font = `700 ${severity === 2 ? 9.5 : 11}px Georgia, serif`;
  pen.textAlign = "center";
  pen.fillText(NUMERALS[severity], 12, severity === 2 ? 19 : 16);
  return pen.getImageData(0, 0, 60, 60);
}

function drawPill(fill, edge) {
  const canvas = new OffscreenCanvas(40, 40);
  const pen = canvas.getContext("2d");
  pen.beginPath();
  pen.roundRect(1.5, 1.5, 37, 37, 10);
  pen.fillStyle = fill;
  pen.fill();
  pen.lineWidth = 2;
  pen.strokeStyle = edge;
  pen.stroke();
  return pen.getImageData(0, 0, 40, 40);
}

function middle(line) {
  const half = Math.floor(line.length / 2);
  if (line.length === 2) return [(line[0][0] + line[1][0]) / 2, (line[0][1] + line[1][1]) / 2];
  return line[half];
}

function boundsOf(city) {
  const points = city.roads.features.flatMap((road) => road.geometry.coordinates);
  const all = points.length ? points : Object.values(city.sensors).map((one) => [one.lon, one.lat]);
  const lons = all.map(([lon]) => lon);
  const lats = all.map(([, lat]) => lat);
  const low = (values) => values.reduce((a, b) => Math.min(a, b));
  const high = (values) => values.reduce((a, b) => Math.max(a, b));
  return [[low(lons), low(lats)], [high(lons), high(lats)]];
}

/** The middle of each zone by its sensors; "" is the city's. */
function zonePlaces(city) {
  const sums = new Map();
  for (const one of Object.values(city.sensors)) {
    for (const zone of [one.zone, ""]) {
      const sum = sums.get(zone) ?? [0, 0, 0];
      sums.set(zone, [sum[0] + one.lon, sum[1] + one.lat, sum[2] + 1]);
    }
  }
  return new Map([...sums].map(([zone, [lon, lat, n]]) => [zone, [lon / n, lat / n]]));
}

