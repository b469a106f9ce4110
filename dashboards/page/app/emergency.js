// Incidents, who is on the way and when he arrives; routes and responders for the map.
import { h } from "/app/dom.js";
import { has, number, t } from "/app/text.js";

export const STATUS_COLOURS = {
  free: "#36b37e", sent: "#ff6b6e", "on-scene": "#f5d042", transporting: "#b79bff", out: "#93a4b5",
};

const kind = (name) => (has(`emergency.kind.${name}`) ? t(`emergency.kind.${name}`) : name);

/** Orders that are not over, newest last. */
function running(store) {
  return [...store.orders.values()].filter((order) => order.ended_ms === null);
}

/** Routes of responders on the way, as map features. */
export function ways(store, links) {
  return running(store).filter((order) => order.state === "sent").flatMap((order) => order.route
    .map((id) => links.get(id)).filter(Boolean)
    .map((road) => ({ type: "Feature", geometry: road.geometry, properties: { id: order.id } })));
}

/** Responders as map features. */
export function responders(store) {
  return [...store.responders.values()].map((one) => ({
    type: "Feature", geometry: { type: "Point", coordinates: [one.lon, one.lat] },
    properties: { id: one.id, status: one.degraded ? "out" : one.status, label: one.id },
  }));
}

/** The list over the map: what is open, who drives, when he arrives, and why somebody waits. */
export class EmergencyList {
  constructor(node, store) {
    Object.assign(this, { node, store });
    for (const type of ["snapshot", "change", "words"]) {
      store.addEventListener(type, () => this.words());
    }
    setInterval(() => this.words(), 1_000);
  }

  words() {
    const open = [...this.store.incidents.values()].filter((one) => one.state !== "closed")
      .sort((a, b) => a.severity - b.severity || a.opened_ms - b.opened_ms);
    this.node.hidden = open.length === 0;
    const shown = open.slice(0, 4).map((one) => this.incident(one));
    const more = open.length > 4 ? h("p", { class: "sub", text: t("emergency.more", { n: number(open.length - 4) }) }) : null;
    const text = JSON.stringify([shown.map((one) => one.textContent), more?.textContent]);
    // Rows that stand still under the pointer: only what reads differently is put in anew.
    if (text !== this.text) this.node.replaceChildren(h("h3", { text: t("emergency.title") }), ...shown, ...(more ? [more] : []));
    this.text = text;
  }

  incident(one) {
    const orders = running(this.store).filter((order) => order.incident === one.id);
    const road = this.store.city.roads.features.find((road) => road.properties.id === one.link);
    return h("article", { class: `incident level-${one.severity}` },
      h("strong", { text: `${kind(one.kind)} · ${road?.properties.name || one.link}` }),
      one.state === "queued" ? h("p", { class: "waits", text: `${t("emergency.queued")} ${one.why}` }) : null,
      orders.map((order) => this.order(order)));
  }

  order(order) {
    const left_s = Math.max(0, Math.round((order.eta_ms - this.store.now()) / 1000));
    const when = order.state === "sent"
      ? t("emergency.eta", { minutes: number(Math.floor(left_s / 60)), seconds: String(left_s % 60).padStart(2, "0") })
      : t(`emergency.state.${order.state}`);
    return h("p", { class: order.degraded ? "order degraded" : "order" },
      h("b", { text: order.responder }), ` ${order.state === "sent" ? t("emergency.state.sent") : ""} ${when}`,
      order.reroutes ? ` · ${t("emergency.reroutes", { n: number(order.reroutes) })}` : "",
      order.degraded ? h("span", { class: "waits", text: ` ${t("emergency.degraded")} ${order.degraded}` }) : null);
  }
}
