// SharedWorker: all tabs share one event stream, so the seventh tab does not stall over HTTP/1.1.
// It keeps the latest events: a tab whose snapshot is a little older still misses none.
import { Source } from "/app/source.js";

const KEPT = 200;
const ports = new Set();
let source = null;
let status = "reconnecting";
let events = [];

function tellAll(message) {
  for (const port of ports) port.postMessage(message);
}

const tell = {
  event(id, data) {
    events.push({ type: "event", id, data });
    if (events.length > KEPT) events = events.slice(-KEPT);
    tellAll(events.at(-1));
  },
  reload() {
    source = null;
    events = [];
    tellAll({ type: "reload" });
  },
  status(now) {
    status = now;
    tellAll({ type: "status", status });
  },
};

const run = (id) => id.slice(0, id.lastIndexOf("-"));

function begin(port, after) {
  if (source !== null && run(source.last) !== run(after)) {
    // The server was started anew and this tab knows it before we do.
    source.close();
    source = null;
    events = [];
  }
  if (source === null) source = new Source(after, tell);
  port.postMessage({ type: "status", status });
  // The tab drops what its snapshot has already, and asks for a new one if there is a gap.
  for (const event of events) port.postMessage(event);
}

self.onconnect = ({ ports: [port] }) => {
  port.onmessage = ({ data }) => {
    if (data.type === "follow") {
      ports.add(port);
      begin(port, data.after);
    } else if (data.type === "bye") {
      ports.delete(port);
      if (ports.size === 0 && source !== null) {
        source.close();
        source = null;
        events = [];
      }
    }
  };
};
