// What the whole page knows.

export const state = {
  key: "",
  thread: "",
  running: null, // AbortController of the answer under way
  cursor: null,
};
