// What carries meaning by shape and colour: severities, road states, icons.
import { s } from "/app/dom.js";

export const NUMERALS = { 1: "I", 2: "II", 3: "III", 4: "IV" };

// China's four levels: red, orange, yellow, blue; each has a shape of its own as well.
export const SEVERITY = {
  1: { colour: "#e5484d", ink: "#ffffff", path: "M7 1h10l6 6v10l-6 6H7l-6-6V7z" },
  2: { colour: "#f08a24", ink: "#1c1206", path: "M12 1.2 23.6 22.4H.4z" },
  3: { colour: "#f5d042", ink: "#1c1a06", path: "M12 .6 23.4 12 12 23.4.6 12z" },
  4: { colour: "#4a90f5", ink: "#ffffff", path: "M12 1a11 11 0 1 1 0 22 11 11 0 0 1 0-22z" },
};

export const ROAD_STATES = ["smooth", "slow", "jam", "heavy-jam", "unknown"];

// The second palette keeps its order of lightness for every kind of colour vision (after Okabe
// and Ito, 2008); width says the same in both.
export const PALETTES = {
  standard: { smooth: "#36b37e", slow: "#f2c94c", jam: "#f2813a", "heavy-jam": "#d92d3a" },
  colourblind: { smooth: "#56b4e9", slow: "#f0e442", jam: "#e69f00", "heavy-jam": "#d55e00" },
};
export const UNKNOWN = { dark: "#465564", light: "#a9b4bf" };

/** A severity's mark: shape, colour and Roman numeral. */
export function severityMark(severity, size = 24, hollow = false) {
  const look = SEVERITY[severity];
  const low = severity === 2 ? 19 : 16;
  return s(
    "svg",
    { class: "mark", viewBox: "0 0 24 24", width: size, height: size, "aria-hidden": "true" },
    s("path", {
      d: look.path,
      fill: hollow ? "none" : look.colour,
      stroke: look.colour,
      "stroke-width": hollow ? 2 : 0,
    }),
    s("text", {
      x: 12,
      y: low,
      "text-anchor": "middle",
      "font-size": severity === 2 ? 10 : 11,
      "font-weight": 700,
      "font-family": "Georgia, 'Times New Roman', serif",
      fill: hollow ? "currentColor" : look.ink,
      text: NUMERALS[severity],
    }),
  );
}

const PATHS = {
  sun: "M12 4V2M12 22v-2M4 12H2M22 12h-2M5.6 5.6 4.2 4.2M19.8 19.8l-1.4-1.4M18.4 5.6l1.4-1.4M4.2 19.8l1.4-1.4M12 7.5a4.5 4.5 0 1 1 0 9 4.5 4.5 0 0 1 0-9z",
  moon: "M20 14.5A8.5 8.5 0 0 1 9.5 4a8.5 8.5 0 1 0 10.5 10.5z",
  eye: "M2 12s3.6-6.5 10-6.5S22 12 22 12s-3.6 6.5-10 6.5S2 12 2 12zM12 9a3 3 0 1 1 0 6 3 3 0 0 1 0-6z",
  search: "M10.5 4a6.5 6.5 0 1 1 0 13 6.5 6.5 0 0 1 0-13zM20 20l-4.8-4.8",
  help: "M9 9a3 3 0 1 1 4.2 2.8c-.8.4-1.2 1-1.2 1.9v.6M12 17.6v.1M12 2.5a9.5 9.5 0 1 1 0 19 9.5 9.5 0 0 1 0-19z",
  check: "M5 12.5l4.5 4.5L19 7.5",
  close: "M6 6l12 12M18 6L6 18",
  pulse: "M2 13h4.5l2.5-8 4.5 14 3-9 1.5 3H22",
  pin: "M12 21s7-6.3 7-11.5A7 7 0 0 0 5 9.5C5 14.7 12 21 12 21zM12 7a2.6 2.6 0 1 1 0 5.2A2.6 2.6 0 0 1 12 7z",
  frame: "M4 9V4h5M20 9V4h-5M4 15v5h5M20 15v5h-5",
};

/** A line icon of the page's own set. */
export function icon(name, size = 18) {
  return s(
    "svg",
    {
      class: "icon", viewBox: "0 0 24 24", width: size, height: size, "aria-hidden": "true",
      fill: "none", stroke: "currentColor", "stroke-width": 1.8,
      "stroke-linecap": "round", "stroke-linejoin": "round",
    },
    s("path", { d: PATHS[name] }),
  );
}
