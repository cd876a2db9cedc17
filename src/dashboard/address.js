// The addresses of the page: which of its views one asks for, and how to link to each. Pure; no DOM.

/**
 * The view that `url` asks for. `kind` is `overview`, `pool`, `agent` or `wall`; `poolIds` are the
 * pools that are shown, null for all that the viewer sees; `agentId` is of an agent's page.
 */
export function viewOf(url) {
  const { pathname, searchParams } = new URL(url);
  const [, poolId, agentId] = /^\/pools\/([^/]+)(?:\/agents\/([^/]+))?$/.exec(pathname) ?? [];
  if (agentId !== undefined) return { kind: "agent", poolIds: [poolId], agentId };
  if (poolId !== undefined) {
    return { kind: searchParams.get("view") === "wall" ? "wall" : "pool", poolIds: [poolId], agentId: null };
  }
  if (pathname !== "/wall") return { kind: "overview", poolIds: null, agentId: null };
  const poolIds = searchParams.get("pools")?.split(",").filter((id) => id !== "") ?? [];
  return { kind: "wall", poolIds: poolIds.length === 0 ? null : [...new Set(poolIds)], agentId: null };
}

/** Ids need no encoding: `[A-Za-z0-9._-]`. */
export const poolHref = (poolId) => `/pools/${poolId}`;

/** See `poolHref`. */
export const agentHref = (poolId, agentId) => `/pools/${poolId}/agents/${agentId}`;
