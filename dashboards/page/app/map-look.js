// What the map is drawn with: grounds, layers, marks.
import { STATUS_COLOURS } from "/app/emergency.js";
import { SOURCE_COLOURS } from "/app/signals.js";
import { NUMERALS, SEVERITY } from "/app/symbols.js";

export const FONTS = ["Noto Sans CJK SC", "Noto Sans SC", "Noto Sans", "PingFang SC", "Microsoft YaHei", "sans-serif"];
export const LOOK = {
  dark: { ground: "#0a0f14", casing: "#05080b", label: "#93a4b5", halo: "#0a0f14", zone: "#62758a", pill: "#18222d", edge: "#3b4c5e", ink: "#e8eef4", dim: "#8496a8", chosen: "#ffffff" },
  light: { ground: "#eef1f4", casing: "#ffffff", label: "#56636f", halo: "#eef1f4", zone: "#8a97a4", pill: "#ffffff", edge: "#b4c0cb", ink: "#16202a", dim: "#6b7884", chosen: "#101820" },
};

/** The layers of the style, from the ground up. look: one of LOOK; colours: road state -> colour. */
export function layers(look, colours) {
  const state = ["coalesce", ["feature-state", "state"], "unknown"];
  const colour = ["match", state, ...Object.entries(colours).flat(), colours.unknown];
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
    { id: "ways", type: "line", source: "ways", layout: line,
      paint: { "line-color": STATUS_COLOURS.sent, "line-width": ["interpolate", ["exponential", 1.6], ["zoom"], 11, 2, 14, 4, 17, 9], "line-offset": offset, "line-dasharray": [1.5, 1.2] } },
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
    { id: "responders", type: "circle", source: "responders",
      paint: { "circle-radius": ["interpolate", ["linear"], ["zoom"], 12, 4, 16, 8], "circle-color": ["match", ["get", "status"], ...Object.entries(STATUS_COLOURS).flat(), look.edge], "circle-stroke-color": look.ink, "circle-stroke-width": 2 } },
    { id: "responder-names", type: "symbol", source: "responders", minzoom: 13.5,
      layout: { "text-field": ["get", "label"], "text-size": 12, "text-font": font, "text-offset": [0, 1.2], "text-anchor": "top", "text-optional": true },
      paint: { "text-color": look.ink, "text-halo-color": look.halo, "text-halo-width": 2.2 } },
    { id: "alerts", type: "symbol", source: "alerts",
      layout: { "icon-image": ["concat", "severity-", ["get", "severity"]], "icon-allow-overlap": true, "icon-ignore-placement": true, "symbol-sort-key": ["-", 0, ["get", "severity"]] },
      paint: { "icon-opacity": ["case", ["get", "acknowledged"], 0.62, 1] } },
  ];
}

export function drawMark(severity) {
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

export function drawPill(fill, edge) {
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
