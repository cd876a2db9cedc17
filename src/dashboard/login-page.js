// `/login` on its own: logs in and goes to the pools. Without scripts the form does the same.

import { attachLogin } from "./login.js";
import { translateDocument } from "./text.js";

translateDocument();
attachLogin(document.getElementById("login"), () => location.replace("/"));
