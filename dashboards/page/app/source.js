// One event stream that mends itself. Used by a page, or once for all tabs by the SharedWorker.

const LONGEST_PAUSE_MS = 10_000;
const SILENCE_MS = 40_000;

/**
 * Follows /api/events after an event id.
 * tell.event(id, text), tell.reload(): the snapshot has to be loaded again,
 * tell.status("open" | "reconnecting").
 */
export class Source {
  constructor(after, tell) {
    this.tell = tell;
    this.last = after;
    this.pause = 500;
    this.heard = Date.now();
    this.open();
    // A connection that died without a word (a suspended laptop) is noticed by its silence.
    this.watch = setInterval(() => {
      if (Date.now() - this.heard > SILENCE_MS) this.again();
    }, 5_000);
  }

  open() {
    this.heard = Date.now();
    this.stream = new EventSource(`/api/events?after=${encodeURIComponent(this.last)}`);
    this.stream.onopen = () => {
      this.pause = 500;
      this.heard = Date.now();
      this.tell.status("open");
    };
    this.stream.onmessage = (event) => {
      this.heard = Date.now();
      this.last = event.lastEventId;
      this.tell.event(event.lastEventId, event.data);
    };
    this.stream.addEventListener("reload", () => {
      this.close();
      this.tell.reload();
    });
    this.stream.onerror = () => this.again();
  }

  again() {
    this.tell.status("reconnecting");
    this.stream.close();
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.open(), this.pause);
    this.heard = Date.now() + this.pause;
    this.pause = Math.min(LONGEST_PAUSE_MS, this.pause * 2);
  }

  close() {
    clearInterval(this.watch);
    clearTimeout(this.timer);
    this.stream.close();
  }
}
