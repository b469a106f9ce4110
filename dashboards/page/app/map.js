// The city's own road network, coloured by live state; stations and alerts on it.
import { h } from "/app/dom.js";
import { EmergencyList, responders, ways } from "/app/emergency.js";
import { FONTS, LOOK, drawMark, drawPill, layers } from "/app/map-look.js";
import { boundsOf, middle, zonePlaces } from "/app/places.js";
import { PALETTES, ROAD_STATES, UNKNOWN, icon } from "/app/symbols.js";
import { SOURCES, SOURCE_COLOURS, features } from "/app/signals.js";
import { mainKind } from "/app/store.js";
import { measure, named, t, unit } from "/app/text.js";

const PAINT_MS = 700;
const FIT = { padding: 36, maxZoom: 16 };

/** Shows a map in a node. Without WebGL it says so and everything else goes on. */
export async function showMap(node, store, prefs) {
  const box = h("div", { class: "map-box" });
  const tools = h("div", { class: "map-tools" });
  const legend = h("div", { class: "legend" });
  const emergency = h("section", { class: "emergency-list", hidden: true, "aria-live": "polite" });
  node.append(box, tools, legend, emergency);
  new EmergencyList(emergency, store);
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
      fitBoundsOptions: FIT,
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
        ways: { ...empty },
        responders: { ...empty },
        alerts: { ...empty },
        chosen: { ...empty },
      },
      layers: layers(this.look(), this.colours()),
    };
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
    for (const layer of layers(this.look(), this.colours())) {
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
        onclick: () => this.map?.fitBounds(this.bounds, { ...FIT, duration: 500 }) }, icon("frame")),
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
    this.set("ways", ways(store, this.links));
    this.set("responders", responders(store));
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
