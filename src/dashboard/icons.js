// The tab's icons, within the script: one of them says that the server is away, and could not be
// fetched then.

const LINES = "M6 7.5h12M6 12h7M6 16.5h10";
const CROSS = "M7 7l10 10M17 7L7 17";

/** Values for the icon link's `href`. */
export const icons = {
  fine: icon("#1d5fd1", LINES),
  alert: icon("#c81e2b", LINES),
  off: icon("#6b7480", CROSS),
};

function icon(ground, path) {
  const svg =
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24"><rect width="24" height="24" rx="6" fill="${ground}"/>` +
    `<path d="${path}" fill="none" stroke="#fff" stroke-width="3" stroke-linecap="round"/></svg>`;
  return `data:image/svg+xml,${encodeURIComponent(svg)}`;
}
