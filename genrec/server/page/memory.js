// A value that outlives the page where the browser allows it, and lives as long as the page where not.

// `kind`: "localStorage", for all tabs, or "sessionStorage", for one.
export function remember(kind, name) {
  let here = null;
  return {
    get() {
      try {
        return JSON.parse(window[kind].getItem(name));
      } catch {
        return here;
      }
    },
    set(value) {
      here = value;
      try {
        if (value === null) window[kind].removeItem(name);
        else window[kind].setItem(name, JSON.stringify(value));
      } catch {
        // Storage is full or forbidden: `here` has to do.
      }
    },
  };
}

// The tab's own value; a new tab begins with what any tab had last.
export function rememberInTab(name) {
  const own = remember("sessionStorage", name);
  const last = remember("localStorage", name);
  let value = own.get() ?? last.get();
  return {
    get: () => value,
    set(now) {
      value = now;
      own.set(now);
      last.set(now);
    },
  };
}
