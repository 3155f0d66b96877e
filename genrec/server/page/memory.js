// A value that outlives the page where the browser allows it, and lives as long as the page where not.

export function remember(storage, name) {
  let here = null;
  return {
    get() {
      try {
        return JSON.parse(storage.getItem(name));
      } catch {
        return here;
      }
    },
    set(value) {
      here = value;
      try {
        if (value === null) storage.removeItem(name);
        else storage.setItem(name, JSON.stringify(value));
      } catch {
        // Storage is full or forbidden: `here` has to do.
      }
    },
  };
}
