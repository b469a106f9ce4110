// What the page knows: the city's pack, the live state, and what is selected. Views subscribe.

const CLEARED_KEPT = 300;

export class Store extends EventTarget {
  constructor(city) {
    super();
    this.city = city;
    this.links = new Map();
    this.alerts = new Map();
    this.values = new Map(); // sensor -> {kind: {value, seen, expected, start_ms, window_ms}}
    this.junctions = new Map();
    this.incidents = new Map();
    this.orders = new Map();
    this.responders = new Map();
    this.measured = new Map(); // live, twin -> what that run costs people
    this.figures = null;
    this.ready = false;
    this.waiting = "broker";
    this.status = "reconnecting";
    this.skew = 0; // server's clock less ours
    this.selected = { alert: null, sensor: null, kind: null, link: null, junction: null };
    this.changedLinks = new Set();
  }

  now() {
    return Date.now() + this.skew;
  }

  snapshot(state) {
    this.links.clear();
    this.alerts.clear();
    this.values.clear();
    this.incidents.clear();
    this.orders.clear();
    this.responders.clear();
    this.apply(state);
    this.tell("snapshot");
  }

  change(change) {
    this.apply(change);
    this.tell("change", change);
  }

  setStatus(status) {
    this.status = status;
    this.tell("status");
  }

  apply(change) {
    this.skew = change.now_ms - Date.now();
    this.figures = change.figures;
    this.ready = change.ready;
    this.waiting = change.waiting;
    for (const link of change.links) {
      this.links.set(link.link, link);
      this.changedLinks.add(link.link);
    }
    for (const alert of change.alerts) this.alerts.set(alert.id, alert);
    for (const id of change.gone) this.alerts.delete(id);
    for (const window of change.windows) this.takeWindow(window);
    for (const one of change.signals?.junctions ?? []) this.junctions.set(one.junction, one);
    for (const one of change.signals?.measured ?? []) this.measured.set(one.run, one);
    const emergency = change.emergency;
    for (const one of emergency?.incidents ?? []) this.incidents.set(one.id, one);
    for (const one of emergency?.orders ?? []) this.orders.set(one.id, one);
    for (const one of emergency?.responders ?? []) this.responders.set(one.id, one);
    for (const id of emergency?.gone ?? []) {
      for (const order of this.incidents.get(id)?.orders ?? []) this.orders.delete(order);
      this.incidents.delete(id);
    }
    this.boundAlerts();
  }

  takeWindow(window) {
    const kind = this.city.kinds[window.kind];
    if (window.window_ms !== kind?.pane_ms) return;
    this.city.rosters[window.shard][window.kind].forEach((sensor, place) => {
      let values = this.values.get(sensor);
      if (!values) this.values.set(sensor, (values = {}));
      const before = values[window.kind];
      const after = {
        value: window.values[place],
        seen: window.seen[place],
        expected: window.expected,
        start_ms: window.start_ms,
        window_ms: window.window_ms,
      };
      if (before && before.start_ms > after.start_ms) return;
      // What was last measured stays shown, with its age, while a sensor says nothing.
      after.last = after.seen > 0 ? after : before?.last ?? null;
      if (after.last) after.last = { ...after.last, last: undefined };
      values[window.kind] = after;
    });
  }

  boundAlerts() {
    const cleared = [...this.alerts.values()].filter((alert) => !alert.active);
    if (cleared.length <= CLEARED_KEPT) return;
    cleared.sort((a, b) => a.updated_ms - b.updated_ms);
    for (const alert of cleared.slice(0, -CLEARED_KEPT)) this.alerts.delete(alert.id);
  }

  /** The road's state now: what has expired is unknown. */
  linkState(id) {
    const link = this.links.get(id);
    return link && link.expires_ms > this.now() ? link.state : "unknown";
  }

  select(what) {
    // A junction is chosen by itself; choosing anything else gives it up.
    this.selected = { ...this.selected, junction: null, ...what };
    this.tell("select", what);
  }

  selectAlert(id) {
    const alert = this.alerts.get(id);
    if (!alert) return;
    const sensor = this.sensorOf(alert);
    const kinds = this.city.sensors[sensor]?.kinds ?? [];
    this.select({
      alert: id,
      sensor,
      link: alert.place.link || null,
      kind: kinds.includes(alert.kind) ? alert.kind : (kinds[0] ?? null),
    });
  }

  selectSensor(id, kind) {
    const sensor = this.city.sensors[id];
    if (!sensor) return;
    const first = kind && sensor.kinds.includes(kind) ? kind : mainKind(sensor);
    this.select({ alert: null, sensor: id, kind: first, link: sensor.link || null });
  }

  selectLink(id) {
    const sensor = Object.entries(this.city.sensors).find(([, one]) => one.link === id);
    if (sensor) this.select({ alert: null, sensor: sensor[0], kind: mainKind(sensor[1]), link: id });
    else this.select({ alert: null, sensor: null, kind: null, link: id });
  }

  selectJunction(id) {
    if (this.city.junctions?.[id]) this.select({ alert: null, sensor: null, kind: null, link: null, junction: id });
  }

  /** The sensor whose chart explains an alert: its own, else one of its road or zone. */
  sensorOf(alert) {
    const { sensor, link, zone } = alert.place;
    if (this.city.sensors[sensor]) return sensor;
    const fits = (one) => !alert.kind || one.kinds.includes(alert.kind);
    const all = Object.entries(this.city.sensors);
    const found =
      all.find(([, one]) => link && one.link === link && fits(one)) ??
      all.find(([, one]) => (one.zone === zone || !this.city.zones[zone]) && fits(one));
    return found ? found[0] : null;
  }

  tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

const MAIN = ["vehicle_speed", "temperature", "pm25", "pedestrian_count"];

/** The kind that stands for a sensor where only one has room. */
export function mainKind(sensor) {
  return MAIN.find((kind) => sensor.kinds.includes(kind)) ?? sensor.kinds[0];
}
