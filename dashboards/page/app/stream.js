// Snapshot, then changes without a gap; after a gap or a restart of the server, a new snapshot.
import { Source } from "/app/source.js";

const split = (id) => {
  const at = id.lastIndexOf("-");
  return [id.slice(0, at), Number(id.slice(at + 1))];
};

export class Stream {
  /** on.snapshot(state), on.change(change), on.status("open" | "reconnecting"). */
  constructor(on) {
    this.on = on;
    this.boot = "";
    this.number = 0;
    this.loading = false;
    this.waiting = [];
    if (typeof SharedWorker === "function") {
      this.worker = new SharedWorker("/app/stream-worker.js", { type: "module", name: "citybrain" });
      this.worker.port.onmessage = ({ data }) => this.take(data);
      addEventListener("pagehide", () => this.worker.port.postMessage({ type: "bye" }));
      addEventListener("pageshow", (event) => event.persisted && this.load());
    }
    this.load();
  }

  async load() {
    if (this.loading) return;
    this.loading = true;
    for (let pause = 500; ; pause = Math.min(10_000, pause * 2)) {
      try {
        const answer = await fetch("/api/state");
        if (!answer.ok) throw new Error(`/api/state: ${answer.status}`);
        const state = await answer.json();
        [this.boot, this.number] = split(state.event);
        this.on.snapshot(state);
        this.follow(state.event);
        break;
      } catch {
        this.on.status("reconnecting");
        await new Promise((done) => setTimeout(done, pause));
      }
    }
    this.loading = false;
    const waiting = this.waiting;
    this.waiting = [];
    for (const event of waiting) this.take(event);
  }

  follow(after) {
    if (this.worker) {
      this.worker.port.postMessage({ type: "follow", after });
      return;
    }
    this.source?.close();
    this.source = new Source(after, {
      event: (id, data) => this.take({ type: "event", id, data }),
      reload: () => this.load(),
      status: (status) => this.on.status(status),
    });
  }

  take(message) {
    if (message.type === "status") this.on.status(message.status);
    else if (message.type === "reload") this.load();
    else if (this.loading) this.waiting = [...this.waiting.slice(-500), message];
    else {
      const [boot, number] = split(message.id);
      if (boot === this.boot && number <= this.number) return;
      if (boot !== this.boot || number > this.number + 1) {
        this.load();
        return;
      }
      this.number = number;
      this.on.change(JSON.parse(message.data));
    }
  }
}
