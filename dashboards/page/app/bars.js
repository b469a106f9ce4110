// The bars at the head and the foot: which city, is it live, how old, how complete.
import { h, put } from "/app/dom.js";
import { icon } from "/app/symbols.js";
import { LANGUAGES, age, clock, current, date, named, number, percent, t, zoneName } from "/app/text.js";

/** From when on data are called old: a minute, longer in a city that measures by the hour. */
export function staleAfter(city) {
  const panes = Object.values(city.kinds).map((kind) => kind.pane_ms);
  return Math.max(60_000, 3 * Math.min(...panes));
}

const FLOOD = 10;

/** Age of the newest closed window of any shard, and of the oldest. */
export function ages(store) {
  const through = Object.values(store.figures?.through_ms ?? {});
  if (!through.length) return { newest: Infinity, oldest: Infinity };
  const now = store.now();
  return { newest: now - Math.max(...through), oldest: now - Math.min(...through) };
}

export class Header {
  /** actions: language(name), theme(), palette(), help(). */
  constructor(node, store, prefs, actions) {
    Object.assign(this, { node, store, prefs, actions });
    this.words();
    setInterval(() => this.tick(), 1_000);
    for (const type of ["status", "snapshot", "change"]) store.addEventListener(type, () => this.tick());
  }

  words() {
    const city = this.store.city;
    const button = (name, label, act, text) =>
      h("button", { type: "button", class: "bar-button", title: label, "aria-label": label, onclick: act, id: `do-${name}` }, text ?? icon(name));
    this.live = h("span", { class: "live" });
    this.link = h("span", { class: "link-state", role: "status", "aria-live": "polite" });
    this.age = h("b");
    this.time = h("time", { class: "clock" });
    this.date = h("span", { class: "date" });
    const other = LANGUAGES.find((name) => name !== current());
    this.node.replaceChildren(
      h("div", { class: "brand" }, icon("pulse", 26),
        h("div", null, h("h1", { text: named(city) }), h("span", { class: "product", text: t("title") }))),
      this.live,
      city.generated ? h("span", { class: "generated", title: t("generated.why") }, t("generated")) : null,
      this.link,
      h("div", { class: "bar-room" }),
      h("div", { class: "data-age" }, h("span", { text: t("header.age") }), this.age),
      h("div", { class: "now" }, this.time, this.date),
      h("div", { class: "bar-buttons" },
        button("eye", t(this.prefs.palette === "standard" ? "palette.colourblind" : "palette.standard"), this.actions.palette),
        button(this.prefs.theme === "dark" ? "sun" : "moon", t(this.prefs.theme === "dark" ? "theme.light" : "theme.dark"), this.actions.theme),
        button("language", t("language.other"), () => this.actions.language(other), h("span", { lang: other, text: other === "en" ? "EN" : "中文" })),
        button("help", t("help.title"), this.actions.help)),
    );
    this.tick();
  }

  tick() {
    const { newest } = ages(this.store);
    const cut = this.store.status !== "open";
    const stale = cut || Boolean(this.store.waiting) || newest > staleAfter(this.store.city);
    const state = cut ? "reconnecting" : !this.store.ready ? "starting" : stale ? "stale" : "live";
    document.body.dataset.state = state;
    this.live.className = `live ${state}`;
    put(this.live, t(`state.${state}`));
    const waiting = this.store.waiting ? t(`waiting.${this.store.waiting}`) : "";
    put(this.link, cut ? t("link.reconnecting") : waiting || t("link.open"));
    this.link.className = `link-state ${cut ? "bad" : waiting ? "warn" : "good"}`;
    put(this.age, age(newest));
    this.age.className = stale ? "bad" : "";
    const now = this.store.now();
    put(this.time, clock(now));
    put(this.date, `${date(now)} · ${zoneName(now)}`);
  }
}

export class Footer {
  constructor(node, store) {
    Object.assign(this, { node, store });
    this.words();
    setInterval(() => this.tick(), 1_000);
    for (const type of ["snapshot", "change"]) store.addEventListener(type, () => this.tick());
  }

  words() {
    this.values = {};
    const figure = (name) => {
      const value = h("b", { text: "–" });
      this.values[name] = value;
      return h("div", { class: "foot-figure", title: t(`foot.${name}.why`) }, h("span", { text: t(`foot.${name}`) }), value);
    };
    this.shards = h("div", { class: "shards", role: "group", "aria-label": t("foot.shards") });
    this.node.replaceChildren(
      ...["rate", "counted", "complete", "refused", "backfilled", "findings", "models", "past"].map(figure),
      h("div", { class: "foot-shards" }, h("span", { text: t("foot.shards") }), this.shards),
    );
    this.tick();
  }

  tick() {
    const figures = this.store.figures;
    if (!figures) return;
    const counts = figures.counts;
    put(this.values.rate, number(figures.readings_per_s, figures.readings_per_s < 100 ? 1 : 0));
    put(this.values.counted, number(counts.counted));
    put(this.values.complete, percent(figures.completeness));
    put(this.values.refused, number(counts.dead_lettered));
    put(this.values.backfilled, number(counts.backfilled));
    put(this.values.findings, number(figures.findings));
    const able = figures.models.filter((model) => this.store.city.kinds[model.kind].horizons_ms.length);
    const fitted = able.filter((model) => model.shards && model.fitted === model.shards).length;
    put(this.values.models, fitted === 0 ? t("foot.models.none") : t("foot.models.some", { n: fitted, of: able.length }));
    this.values.models.className = fitted < able.length ? "warn" : "";
    const past = figures.past ?? null;
    this.values.past.parentNode.hidden = past === null;
    put(this.values.past, past === null ? "" : t("foot.past.some", { share: percent(past) }));
    const shards = Object.keys(this.store.city.rosters);
    const few = shards.length <= 12;
    const now = this.store.now();
    const limit = staleAfter(this.store.city);
    const rows = shards.map((shard) => ({ shard, ms: now - (figures.through_ms[shard] ?? -Infinity) }));
    const shown = few ? rows : rows.sort((a, b) => b.ms - a.ms).slice(0, 6);
    if (this.shards.children.length !== shown.length) {
      this.shards.replaceChildren(...shown.map(() => h("span", { class: "shard" }, h("i"), h("span"), h("b"))));
    }
    shown.forEach(({ shard, ms }, place) => {
      const [dot, name, value] = this.shards.children[place].children;
      put(name, named(this.store.city.zones[shard]) || shard);
      put(value, age(ms));
      dot.className = ms < limit ? "good" : ms < 3 * limit ? "warn" : "bad";
    });
  }
}

/** The banner of an alarm flood: more than ten alerts in ten minutes. */
export function showFlood(node, store) {
  const tick = () => {
    const raised = store.figures?.raised ?? 0;
    node.hidden = raised <= FLOOD;
    put(node, raised > FLOOD ? t("flood", { n: raised }) : "");
  };
  for (const type of ["snapshot", "change", "words"]) store.addEventListener(type, tick);
}
