// Puts the page together: language, pack, live state, views.
import { AlertList } from "/app/alerts.js";
import { Footer, Header, showFlood } from "/app/bars.js";
import { h } from "/app/dom.js";
import { listen, showHelp } from "/app/help.js";
import { showMap } from "/app/map.js";
import { Panel } from "/app/panel.js";
import { Store } from "/app/store.js";
import { Stream } from "/app/stream.js";
import { LANGUAGES, current, named, t, use, useZone, wanted } from "/app/text.js";

const node = (id) => document.getElementById(id);

/** What this browser remembers; a browser that forbids it forgets. */
function preferences() {
  const read = (name, known) => {
    try {
      const value = localStorage.getItem(`citybrain.${name}`);
      return known.includes(value) ? value : known[0];
    } catch {
      return known[0];
    }
  };
  return {
    theme: read("theme", ["dark", "light"]),
    palette: read("palette", ["standard", "colourblind"]),
    keep(name, value) {
      this[name] = value;
      try {
        localStorage.setItem(`citybrain.${name}`, value);
      } catch {
        // Private windows may refuse; the choice then lasts as long as the page.
      }
    },
  };
}

async function loadCity() {
  for (let pause = 500; ; pause = Math.min(5_000, pause * 2)) {
    try {
      const answer = await fetch("/api/city");
      if (answer.ok) return await answer.json();
    } catch {
      // The server is not there yet: the page waits for it and says so.
    }
    node("footer").textContent = t("link.reconnecting");
    await new Promise((done) => setTimeout(done, pause));
  }
}

function labels(city) {
  for (const one of document.querySelectorAll("[data-label]")) {
    one.setAttribute("aria-label", t(one.dataset.label));
  }
  document.title = `${named(city)} · ${t("title")}`;
}

async function begin() {
  const prefs = preferences();
  document.documentElement.dataset.theme = prefs.theme;
  document.documentElement.dataset.palette = prefs.palette;
  await use(wanted());
  const city = await loadCity();
  useZone(city.time_zone);
  labels(city);
  const store = new Store(city);
  const views = [];
  const words = () => {
    labels(city);
    for (const view of views) view.words();
    store.tell("words");
  };
  const actions = {
    async language(name) {
      await use(name);
      words();
      map?.restyle();
    },
    theme() {
      prefs.keep("theme", prefs.theme === "dark" ? "light" : "dark");
      document.documentElement.dataset.theme = prefs.theme;
      words();
      map?.restyle();
    },
    palette() {
      prefs.keep("palette", prefs.palette === "standard" ? "colourblind" : "standard");
      document.documentElement.dataset.palette = prefs.palette;
      words();
      map?.restyle();
    },
    help: showHelp,
  };
  const alerts = new AlertList(node("alerts"), store);
  views.push(new Header(node("header"), store, prefs, actions), alerts,
    new Panel(node("panel"), store, prefs), new Footer(node("footer"), store));
  showFlood(node("flood"), store);
  listen({
    j: () => alerts.step(1),
    k: () => alerts.step(-1),
    "/": () => alerts.search.focus(),
    "?": showHelp,
    l: () => actions.language(LANGUAGES.find((name) => name !== current())),
    t: actions.theme,
    c: actions.palette,
    Escape: () => {
      if (document.activeElement === alerts.search) alerts.search.blur();
      else store.select({ alert: null, sensor: null, kind: null, link: null });
    },
  });
  let map = null;
  const stream = new Stream({
    snapshot: (state) => store.snapshot(state),
    change: (change) => store.change(change),
    status: (status) => store.setStatus(status),
  });
  map = await showMap(node("map"), store, prefs);
  return stream;
}

begin().catch((error) => {
  document.body.replaceChildren(h("p", { class: "fatal", text: `citybrain: ${error.message}` }));
  throw error;
});
