// Words, numbers and times in the chosen language and in the city's time zone.

export const LANGUAGES = ["zh-CN", "en"];

let language = "zh-CN";
let words = {};
let zone = "UTC";

/** The language that the address asks for, else the browser's, else Chinese. */
export function wanted() {
  const asked = new URLSearchParams(location.search).get("lang");
  if (LANGUAGES.includes(asked)) return asked;
  return navigator.language.startsWith("en") ? "en" : "zh-CN";
}

/** Loads a catalogue and makes it the page's language. */
export async function use(name) {
  const answer = await fetch(`/text/${name}.json`);
  if (!answer.ok) throw new Error(`text/${name}.json: ${answer.status}`);
  words = await answer.json();
  language = name;
  document.documentElement.lang = name;
  const address = new URL(location.href);
  if (address.searchParams.get("lang") !== name) {
    address.searchParams.set("lang", name);
    history.replaceState(null, "", address);
  }
}

export const current = () => language;

/** Times are shown in this zone from now on. */
export function useZone(name) {
  zone = name;
}

/** The text of a key with `{name}` filled in; the key itself if the catalogue lacks it. */
export function t(key, values = {}) {
  const text = words[key] ?? key;
  return text.replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
}

/** Whether the catalogue has a key. */
export const has = (key) => key in words;

/** The one of `{zh, en}` that is in the page's language. */
export const named = (both) => (both ? (language === "en" ? both.en : both.zh) : "");

/** A number with up to `digits` decimals, a dash for none. */
export function number(value, digits = 0) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  return value.toLocaleString(language, { maximumFractionDigits: digits });
}

/** As many digits as are worth reading on a city's scale. */
export function measure(value) {
  return number(value, Math.abs(value) >= 100 ? 0 : 1);
}

export function percent(share) {
  return share === null || share === undefined ? "–" : `${number(share * 100, share > 0.9995 ? 0 : 1)}%`;
}

const UNITS = { Cel: "°C", "ug/m3": "µg/m³", "m/s": "m/s", "mg/m3": "mg/m³", "1": "" };

/** A UCUM unit as people write it; counts (`{vehicles}`) by their word in the catalogue. */
export function unit(code) {
  const count = /^\{(.+)\}$/.exec(code ?? "");
  if (count) return has(`unit.${count[1]}`) ? t(`unit.${count[1]}`) : count[1];
  return UNITS[code] ?? code ?? "";
}

const formats = new Map();

function format(options) {
  const key = `${language} ${zone} ${JSON.stringify(options)}`;
  let found = formats.get(key);
  if (!found) {
    found = new Intl.DateTimeFormat(language, { timeZone: zone, hourCycle: "h23", ...options });
    formats.set(key, found);
  }
  return found;
}

export const clock = (ms) =>
  format({ hour: "2-digit", minute: "2-digit", second: "2-digit" }).format(ms);
export const hourMinute = (ms) => format({ hour: "2-digit", minute: "2-digit" }).format(ms);
export const date = (ms) =>
  format({ year: "numeric", month: "short", day: "numeric", weekday: "short" }).format(ms);
export const dayTime = (ms) =>
  format({ month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit" }).format(ms);

/** The zone's name as it is shown beside the clock, such as GMT+8. */
export function zoneName(ms) {
  const parts = format({ timeZoneName: "short" }).formatToParts(ms);
  return parts.find((part) => part.type === "timeZoneName")?.value ?? zone;
}

/** How long ago, in words that stay short. */
export function age(ms) {
  if (!Number.isFinite(ms)) return "–";
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 90) return t("age.s", { n: seconds });
  if (seconds < 5400) return t("age.min", { n: Math.round(seconds / 60) });
  if (seconds < 172800) return t("age.h", { n: Math.round(seconds / 3600) });
  return t("age.d", { n: Math.round(seconds / 86400) });
}
