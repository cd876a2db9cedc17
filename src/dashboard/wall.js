// Pools on a wall screen: without controls, to be read from afar.

import { Overview } from "./overview.js";

/** The view of a wall screen; its interface is in app.js. */
export class WallPage extends Overview {}
