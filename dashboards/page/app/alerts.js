// The alert list: what is wrong, where, since when, how far from normal, and what to do.
import { h, put } from "/app/dom.js";
import { NUMERALS, icon, severityMark } from "/app/symbols.js";
import { age, dayTime, has, measure, named, number, t, unit } from "/app/text.js";

const PAGE = 100;
const VIEWS = ["active", "aside", "cleared"];

export class AlertList {
  constructor(node, store) {
    this.node = node;
    this.store = store;
    this.view = "active";
    this.severity = null;
    this.query = "";
    this.room = PAGE;
    this.rows = new Map();
    this.order = [];
    this.links = new Map(store.city.roads.features.map((road) => [road.properties.id, road.properties]));
    this.words();
    // The whole field, so that the way to its button does not let the rows go.
    node.addEventListener("pointerenter", () => (this.held = true));
    node.addEventListener("pointerleave", () => {
      this.held = false;
      this.refresh();
    });
    store.addEventListener("snapshot", () => this.refresh(true));
    store.addEventListener("change", ({ detail }) => {
      if (detail.alerts.length || detail.gone.length) this.refresh();
    });
    store.addEventListener("select", () => this.mark());
    setInterval(() => this.tick(), 1_000);
  }

  /** Builds everything in the page's language. */
  words() {
    this.rows.clear();
    this.counts = new Map();
    const chip = (severity) => {
      const count = h("b", { text: "0" });
      this.counts.set(severity, count);
      return h("button", { type: "button", class: "chip", "aria-pressed": String(this.severity === severity),
        title: t("alerts.only", { level: t(`severity.${severity}`) }),
        "aria-label": t("alerts.only", { level: t(`severity.${severity}`) }),
        onclick: () => { this.severity = this.severity === severity ? null : severity; this.words(); this.refresh(true); } },
      severityMark(severity, 18), count);
    };
    this.tabs = new Map();
    const tab = (view) => {
      const count = h("b");
      const button = h("button", { type: "button", class: "tab", role: "tab", "aria-selected": String(this.view === view),
        onclick: () => { this.view = view; this.room = PAGE; this.words(); this.refresh(true); } }, t(`alerts.${view}`), count);
      this.tabs.set(view, count);
      return button;
    };
    this.search = h("input", { type: "search", id: "alert-search", placeholder: t("alerts.search"), "aria-label": t("alerts.search"), value: this.query,
      oninput: () => { this.query = this.search.value.trim().toLowerCase(); this.refresh(true); } });
    this.list = h("ol", { class: "list", tabindex: "-1" });
    this.fresh = h("button", { type: "button", class: "fresh", hidden: true, onclick: () => this.refresh(true) });
    this.more = h("button", { type: "button", class: "more", hidden: true, onclick: () => { this.room += PAGE; this.refresh(true); } });
    this.empty = h("div", { class: "empty", hidden: true });
    this.node.replaceChildren(
      h("div", { class: "alerts-head" },
        h("h2", { text: t("alerts.title") }),
        h("div", { class: "chips" }, [1, 2, 3, 4].map(chip))),
      h("div", { class: "tabs", role: "tablist" }, VIEWS.map(tab)),
      h("label", { class: "search" }, icon("search", 16), this.search, h("kbd", { text: "/" })),
      this.fresh,
      h("div", { class: "scroll" }, this.list, this.more, this.empty),
    );
    this.refresh(true);
  }

  viewOf(alert) {
    if (!alert.active) return "cleared";
    return alert.suppressed_by || alert.shelved_until_ms > this.store.now() ? "aside" : "active";
  }

  wanted() {
    const all = [...this.store.alerts.values()];
    return all
      .filter((alert) => this.viewOf(alert) === this.view)
      .filter((alert) => this.severity === null || alert.severity === this.severity)
      .filter((alert) => !this.query || this.haystack(alert).includes(this.query))
      .sort((a, b) => this.view === "cleared" ? b.updated_ms - a.updated_ms
        : a.acknowledged - b.acknowledged || a.severity - b.severity || b.opened_ms - a.opened_ms || (a.id < b.id ? -1 : 1));
  }

  /** New alerts never move the row under the pointer: they wait behind a button. */
  refresh(now = false) {
    const wanted = this.wanted();
    this.count();
    const ids = wanted.slice(0, this.room).map((alert) => alert.id);
    if (this.held && !now && this.order.length) {
      const shown = new Set(this.order);
      const waiting = ids.filter((id) => !shown.has(id)).length;
      this.fresh.hidden = waiting === 0;
      put(this.fresh, t("alerts.fresh", { n: waiting }));
      for (const id of this.order) this.row(id);
      return;
    }
    this.fresh.hidden = true;
    this.order = ids;
    const rows = ids.map((id) => this.row(id));
    // Only moves what has to move: a row that stays keeps its focus.
    rows.forEach((row, place) => {
      if (this.list.children[place] !== row) this.list.insertBefore(row, this.list.children[place] ?? null);
    });
    while (this.list.children.length > rows.length) this.list.lastChild.remove();
    this.more.hidden = wanted.length <= ids.length;
    put(this.more, t("alerts.more", { n: wanted.length - ids.length }));
    this.empty.hidden = wanted.length > 0;
    this.empty.replaceChildren(icon("check", 28), h("span", { text: this.emptyText() }));
    for (const id of this.rows.keys()) if (!this.store.alerts.has(id)) this.rows.delete(id);
    this.mark();
  }

  emptyText() {
    if (!this.store.ready) return t("alerts.loading");
    return t(this.query || this.severity ? "alerts.none.filtered" : `alerts.none.${this.view}`);
  }

  count() {
    const counts = { active: 0, aside: 0, cleared: 0 };
    const severities = { 1: 0, 2: 0, 3: 0, 4: 0 };
    for (const alert of this.store.alerts.values()) {
      const view = this.viewOf(alert);
      counts[view] += 1;
      if (view === "active") severities[alert.severity] += 1;
    }
    for (const [view, node] of this.tabs) put(node, number(counts[view]));
    for (const [severity, node] of this.counts) {
      put(node, number(severities[severity]));
      node.parentNode.classList.toggle("none", severities[severity] === 0);
    }
  }

  row(id) {
    const alert = this.store.alerts.get(id);
    let row = this.rows.get(id);
    if (!alert) return row;
    if (!row) {
      row = h("li", { class: "alert", "data-alert": id });
      this.rows.set(id, row);
    }
    const chosen = this.store.selected.alert === id;
    const key = `${alert.revision}/${chosen}/${this.viewOf(alert)}`;
    if (row.dataset.key !== key) {
      row.dataset.key = key;
      const hadFocus = row.contains(document.activeElement);
      row.className = `alert severity-${alert.severity}${alert.acknowledged ? " acknowledged" : ""}${alert.active ? "" : " cleared"}${chosen ? " chosen" : ""}`;
      row.replaceChildren(this.face(alert, chosen), ...(chosen ? [this.detail(alert)] : []));
      if (hadFocus) row.firstChild.focus();
    }
    return row;
  }

  face(alert, chosen) {
    return h("button", { type: "button", class: "face", "aria-expanded": String(chosen), onclick: () => this.store.selectAlert(alert.id) },
      h("span", { class: "sign" }, severityMark(alert.severity, 28, !alert.active), h("span", { class: "hidden", text: t(`severity.${alert.severity}`) })),
      h("span", { class: "body" },
        h("span", { class: "top" },
          h("strong", { text: this.title(alert) }),
          h("time", { "data-opened": alert.opened_ms, text: this.since(alert) })),
        h("span", { class: "where" }, h("span", { class: "place", text: this.where(alert) }),
          alert.generated ? h("span", { class: "mock", text: t("generated.short") }) : null),
        h("span", { class: "facts" },
          h("span", { class: "level", text: t(`severity.${alert.severity}`) }),
          this.measured(alert),
          alert.acknowledged ? h("span", { class: "flag" }, icon("check", 14), t("alerts.acknowledged")) : null)));
  }

  measured(alert) {
    if (alert.observed === null) return null;
    const of = ` ${unit(alert.unit)}`;
    const seen = t("alerts.observed", { value: measure(alert.observed) + of });
    const expected = alert.expected === null ? "" : ` · ${t("alerts.expected", { value: measure(alert.expected) + of })}`;
    return h("span", { class: "measured", text: seen + expected });
  }

  detail(alert) {
    const advice = `advice.${alert.advice}`;
    const rows = [
      [t("alerts.opened"), dayTime(alert.opened_ms)],
      alert.cleared_ms ? [t("alerts.cleared_at"), dayTime(alert.cleared_ms)] : null,
      [t("alerts.by"), alert.detector || alert.rule],
      [t("alerts.findings"), number(alert.finding_count)],
      alert.acknowledged_by ? [t("alerts.acknowledged"), [alert.acknowledged_by, alert.comment].filter(Boolean).join(": ")] : null,
      alert.assignee ? [t("alerts.assignee"), alert.assignee] : null,
      alert.shelved_until_ms > this.store.now() ? [t("alerts.shelved"), `${dayTime(alert.shelved_until_ms)} ${alert.shelved_reason}`] : null,
      alert.suppressed_by ? [t("alerts.suppressed"), this.titleOf(alert.suppressed_by)] : null,
      alert.place.sensor ? [t("alerts.sensor"), alert.place.sensor] : null,
      ["ID", alert.id],
    ].filter(Boolean);
    return h("div", { class: "detail" },
      h("div", { class: "advice" },
        h("h3", { text: t("alerts.advice") }),
        h("p", { text: has(advice) ? t(advice) : t("advice.unknown") })),
      h("dl", null, rows.map(([name, value]) => [h("dt", { text: name }), h("dd", { text: value })])));
  }

  title(alert) {
    return named(this.store.city.rules[alert.rule]) || alert.rule;
  }

  titleOf(id) {
    const alert = this.store.alerts.get(id);
    return alert ? this.title(alert) : id;
  }

  where(alert) {
    const { sensor, link, zone } = alert.place;
    const one = this.store.city.sensors[sensor];
    const parts = [
      this.links.get(link)?.name || one?.name || "",
      named(this.store.city.zones[zone]) || (zone ? zone : t("place.city")),
    ];
    return [...new Set(parts.filter(Boolean))].join(" · ");
  }

  since(alert) {
    return t("ago", { age: age(this.store.now() - (alert.cleared_ms ?? alert.opened_ms)) });
  }

  haystack(alert) {
    return `${this.title(alert)} ${this.where(alert)} ${alert.place.sensor} ${t(`severity.${alert.severity}`)} ${NUMERALS[alert.severity]} ${alert.id}`.toLowerCase();
  }

  tick() {
    for (const id of this.order) {
      const time = this.rows.get(id)?.querySelector("time");
      const alert = this.store.alerts.get(id);
      if (time && alert) put(time, this.since(alert));
    }
  }

  mark() {
    for (const id of this.order) this.row(id);
    const chosen = this.store.selected.alert;
    if (chosen && this.rows.get(chosen)?.isConnected) {
      this.rows.get(chosen).scrollIntoView({ block: "nearest" });
    }
  }

  /** j and k: the next or previous alert of the list. */
  step(by) {
    if (!this.order.length) return;
    const at = this.order.indexOf(this.store.selected.alert);
    const next = at < 0 ? 0 : Math.min(this.order.length - 1, Math.max(0, at + by));
    this.store.selectAlert(this.order[next]);
    this.rows.get(this.order[next])?.firstChild.focus();
  }
}
