// Requests to the server: JSON with errors as sentences, waiting while it is busy, events of jobs.

/** What the server said about a request that failed; `status` 0: it cannot be reached. */
export class Refused extends Error {
  /** @param {string} message @param {number} status */
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

const GONE = "The server cannot be reached. Is it still running?";

const pause = (/** @type {number} */ ms, /** @type {AbortSignal | undefined} */ signal) =>
  new Promise((done, fail) => {
    const timer = setTimeout(done, ms);
    signal?.addEventListener("abort", () => (clearTimeout(timer), fail(signal.reason)), { once: true });
  });

/**
 * A response; waits and asks again while the server is busy (429) or loads its weights (503), and,
 * where there is somebody to say so to, while it cannot be reached.
 * @param {string} path
 * @param {RequestInit & {waiting?: (text: string) => void}} [options]
 * @returns {Promise<Response>}
 */
export async function ask(path, options = {}) {
  const { waiting, ...init } = options;
  for (;;) {
    let answer;
    try {
      answer = await fetch(path, init);
    } catch (error) {
      if (init.signal?.aborted) throw error;
      if (!waiting) throw new Refused(GONE, 0);
      waiting(`${GONE} Trying again in 2 s`);
      await pause(2000, init.signal ?? undefined);
      continue;
    }
    if (answer.ok) return answer;
    const { error } = await answer.json().catch(() => ({ error: answer.statusText }));
    if (answer.status !== 429 && answer.status !== 503) throw new Refused(error, answer.status);
    const seconds = answer.status === 503 ? 1 : Number(answer.headers.get("retry-after")) || 2;
    const why = answer.status === 503 ? "The weights are being loaded" : "The server is busy";
    waiting?.(`${why}; trying again in ${seconds} s`);
    await pause(1000 * seconds, init.signal ?? undefined);
  }
}

/** The JSON of a response, see `ask`. */
export async function json(/** @type {string} */ path, options = {}) {
  return (await ask(path, options)).json();
}

/** A path with a query; empty, null and undefined values are left out. */
export function query(/** @type {string} */ path, /** @type {Record<string, any>} */ values) {
  const given = Object.entries(values).filter(([, value]) => value !== "" && value != null);
  return given.length ? `${path}?${new URLSearchParams(given)}` : path;
}

/**
 * A function of which the last call alone counts: the one before is aborted.
 * @template T
 * @param {(signal: AbortSignal, ...args: any[]) => Promise<T>} work
 * @returns {(...args: any[]) => Promise<T | undefined>} undefined for a call that was overtaken
 */
export function latest(work) {
  /** @type {AbortController | null} */
  let current = null;
  return async (...args) => {
    current?.abort();
    const own = (current = new AbortController());
    try {
      const found = await work(own.signal, ...args);
      return own === current ? found : undefined;
    } catch (error) {
      if (own.signal.aborted) return undefined;
      throw error;
    }
  };
}

/**
 * A function for sliders: one call at a time, and after it the last one that was asked meanwhile.
 * @param {(...args: any[]) => Promise<any>} work
 */
export function oneAtATime(work) {
  let busy = false;
  /** @type {any[] | null} */
  let next = null;
  return async function run(/** @type {any[]} */ ...args) {
    if (busy) return void (next = args);
    busy = true;
    try {
      await work(...args);
    } finally {
      busy = false;
      const waiting = next;
      next = null;
      if (waiting) run(...waiting);
    }
  };
}

/**
 * Follow a job to its end; aborting the signal cancels it.
 * @param {string} job
 * @param {Record<string, (values: any) => void>} on by event: queued, progress, boxes ...
 * @param {AbortSignal} [signal]
 * @returns {Promise<any>} what "done" says; null if it was cancelled
 */
export function follow(job, on, signal) {
  return new Promise((resolve, reject) => {
    const source = new EventSource(`/api/jobs/${job}/events`);
    let lost = 0;
    const end = (/** @type {() => void} */ then) => {
      source.close();
      signal?.removeEventListener("abort", cancel);
      then();
    };
    const cancel = () => {
      fetch(`/api/jobs/${job}`, { method: "DELETE", keepalive: true }).catch(() => {});
      end(() => resolve(null));
    };
    if (signal?.aborted) return cancel();
    signal?.addEventListener("abort", cancel, { once: true });
    const hear = (/** @type {string} */ name, /** @type {(values: any) => void} */ then) =>
      source.addEventListener(name, (event) => ((lost = 0), then(JSON.parse(event.data))));
    for (const [name, then] of Object.entries(on)) hear(name, then);
    hear("done", (values) => end(() => resolve(values)));
    hear("cancelled", () => end(() => resolve(null)));
    hear("failed", ({ error }) => end(() => reject(new Refused(error, 422))));
    source.onerror = () => {
      lost += 1; // EventSource connects again by itself, unless the answer was an error
      if (source.readyState === EventSource.CLOSED || lost > 2)
        end(() => reject(new Refused(GONE, 0)));
    };
  });
}
