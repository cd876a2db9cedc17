//! The files of the page, embedded, with type, entity tag and policy. Knows nothing of viewers: the page
//! itself is public, and asks for a token when the server requires one.

use std::sync::OnceLock;

use sha2::{Digest as _, Sha256};

use crate::wire::id::is_valid_id;
use crate::wire::response::{Body, Header, Response};

struct File {
    /// In `src/dashboard`.
    name: &'static str,
    bytes: &'static [u8],
    entity_tag: OnceLock<String>,
}

macro_rules! file {
    ($name:literal) => {
        File { name: $name, bytes: include_bytes!($name), entity_tag: OnceLock::new() }
    };
}

/// Other sites' pages import metrics-client.js, which imports the `client-*.js` beside it.
static FILES: [File; 60] = [
    file!("index.html"),
    file!("login.html"),
    file!("style.css"),
    file!("messages.css"),
    file!("agent-row.css"),
    file!("agents.css"),
    file!("pool.css"),
    file!("overview.css"),
    file!("app.js"),
    file!("address.js"),
    file!("header.js"),
    file!("overview.js"),
    file!("pool-page.js"),
    file!("agent-page.js"),
    file!("agent-page.css"),
    file!("chart.js"),
    file!("task-list.js"),
    file!("wall.js"),
    file!("agent-list.js"),
    file!("client-checks.js"),
    file!("client-connection.js"),
    file!("client-http.js"),
    file!("health.js"),
    file!("icons.js"),
    file!("login.js"),
    file!("login-page.js"),
    file!("agent-cell.js"),
    file!("wall.css"),
    file!("wall-panel.js"),
    file!("wall-tile.js"),
    file!("fleet-map.js"),
    file!("map.css"),
    file!("map-canvas.js"),
    file!("map-cursor.js"),
    file!("map-layout.js"),
    file!("map-links.js"),
    file!("map-paint.js"),
    file!("map-strip.js"),
    file!("metrics-client.d.ts"),
    file!("metrics-client.js"),
    file!("parts.js"),
    file!("seen.js"),
    file!("pool-card.js"),
    file!("text.js"),
    file!("agent-entry.js"),
    file!("agent-row.js"),
    file!("placing.js"),
    file!("row-window.js"),
    file!("trends.js"),
    file!("history.js"),
    file!("numbers.js"),
    file!("toolbar.js"),
    file!("chips.js"),
    file!("sentence.js"),
    file!("empty-pool.js"),
    file!("pool-map.js"),
    file!("view.js"),
    file!("words-en.js"),
    file!("words-zh.js"),
    file!("favicon.svg"),
];

/// A page may load its own files, show the icons in its script (`data:`), and connect to its own server
/// (`'self'` includes same-origin WebSockets: CSP level 3, "scheme-part match"), and nothing else. No
/// script may create markup from text (Trusted Types), and no other site may frame the page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'self'; \
    frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

const HTML: &str = "text/html; charset=utf-8";

/// What shows the problem that login.html has ready, and ties it to the field.
const SHOWS_PROBLEM: [(&str, &str); 2] = [
    ("aria-invalid=\"false\"", "aria-invalid=\"true\""),
    ("id=\"login-problem\" role=\"alert\" hidden", "id=\"login-problem\" role=\"alert\""),
];

pub(crate) fn exists(path: &str) -> bool {
    find(path).is_some()
}

/// The file at `path`, or 304 when `if_none_match`, the header of that name (RFC 9110 section 13.1.2),
/// names it; 404 where [`exists`] is false.
pub(crate) fn answer(path: &str, if_none_match: Option<&str>) -> Response {
    let Some(file) = find(path) else {
        return Response::problem(404, "no such path");
    };
    let unchanged = if_none_match.is_some_and(|tags| matches_any(tags, file.entity_tag()));
    let (status, bytes) = if unchanged { (304, &[][..]) } else { (200, file.bytes) };
    Response { status, headers: file.headers().into(), body: Body::Static(bytes) }
}

/// For a path that leads nowhere: a page for people, where programs get a problem body.
pub(crate) fn not_found() -> Response {
    refusal(404, include_bytes!("not-found.html"))
}

/// The login's page with its problem shown, for a form that was sent without scripts.
pub(crate) fn login_failed() -> Response {
    static PAGE: OnceLock<String> = OnceLock::new();
    let page = PAGE.get_or_init(|| {
        SHOWS_PROBLEM.iter().fold(include_str!("login.html").to_owned(), |page, (before, after)| {
            page.replacen(before, after, 1)
        })
    });
    refusal(401, page.as_bytes())
}

fn refusal(status: u16, page: &'static [u8]) -> Response {
    let headers = [("Content-Type", HTML.into()), ("Cache-Control", "no-store".into())];
    let headers = headers.into_iter().chain(page_headers()).collect();
    Response { status, headers, body: Body::Static(page) }
}

fn find(path: &str) -> Option<&'static File> {
    let name = match path.strip_prefix('/')? {
        "" => "index.html",
        "login" => "login.html",
        // The script reads the pool, the agent and the wall's pools from the address.
        "wall" => "index.html",
        name if name.strip_prefix("pools/").is_some_and(is_pool_page) => "index.html",
        name if name.ends_with(".html") => return None,
        name => name,
    };
    FILES.iter().find(|file| file.name == name)
}

/// Whether this, after `/pools/`, is a pool's page or an agent's.
fn is_pool_page(rest: &str) -> bool {
    match rest.split_once("/agents/") {
        Some((pool, agent)) => is_valid_id(pool) && is_valid_id(agent),
        None => is_valid_id(rest),
    }
}

impl File {
    /// A strong entity tag (RFC 9110 section 8.8.3) from the content's SHA-256.
    fn entity_tag(&'static self) -> &'static str {
        self.entity_tag
            .get_or_init(|| format!("\"{}\"", hex::encode(&Sha256::digest(self.bytes)[..16])))
    }

    fn is_html(&self) -> bool {
        self.name.ends_with(".html")
    }

    fn content_type(&self) -> &'static str {
        match self.name.rsplit('.').next() {
            Some("html") => HTML,
            Some("css") => "text/css; charset=utf-8",
            Some("js") => "text/javascript; charset=utf-8",
            Some("svg") => "image/svg+xml; charset=utf-8",
            // TypeScript, which has no media type.
            _ => "text/plain; charset=utf-8",
        }
    }

    fn headers(&'static self) -> Vec<Header> {
        let mut headers = vec![
            ("Content-Type", self.content_type().into()),
            // Requested each time, so that page and server are of one version; a 304 is cheap.
            ("Cache-Control", "no-cache".into()),
            ("ETag", self.entity_tag().into()),
        ];
        if self.is_html() {
            headers.extend(page_headers());
        }
        headers
    }
}

fn page_headers() -> [Header; 3] {
    [
        ("Content-Security-Policy", POLICY.into()),
        // A wall screen's address contains a token until the page has used it. `no-referrer` would
        // be too strict: the login form, sent without scripts, would have the Origin `null`.
        ("Referrer-Policy", "strict-origin".into()),
        ("Cross-Origin-Opener-Policy", "same-origin".into()),
    ]
}

/// Whether `tags`, an If-None-Match, names `tag`, by the weak comparison of RFC 9110 section 13.1.2.
/// Our tags contain no comma, so splitting at commas finds them.
fn matches_any(tags: &str, tag: &str) -> bool {
    tags.split(',')
        .map(str::trim)
        .any(|listed| listed == "*" || listed.strip_prefix("W/").unwrap_or(listed) == tag)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::id::MAX_ID_BYTES;

    fn header<'a>(answer: &'a Response, name: &str) -> Option<&'a str> {
        let mut values = answer.headers.iter().filter(|(key, _)| *key == name);
        let value = values.next().map(|(_, value)| &**value);
        assert!(values.next().is_none(), "{name} is there once");
        value
    }

    #[test]
    fn pages_of_pools_and_agents_exist_for_valid_ids_only() {
        let longest = format!("/pools/{0}/agents/{0}", "x".repeat(MAX_ID_BYTES));
        for path in [
            "/",
            "/login",
            "/wall",
            "/pools/local",
            "/pools/a.b_C-9",
            "/pools/agents",
            "/pools/a/agents/b.b_C-9",
            "/pools/agents/agents/agents",
            "/favicon.svg",
            &longest,
        ] {
            assert!(exists(path), "{path}");
        }
        let too_long = format!("{longest}x");
        for path in [
            "",
            "/pools",
            "/pools/",
            "/pools/.",
            "/pools/..",
            "/pools/a/",
            "/pools/a/b",
            "/pools/a%20b",
            "/pools/a/agents",
            "/pools/a/agents/",
            "/pools/a/agents/..",
            "/pools/./agents/a",
            "/pools//agents/a",
            "/pools/a/agents/b/",
            "/pools/a/agents/b/agents/c",
            "/pools/a/agents/b%20c",
            "/wall/",
            "/wall/a",
            "/index.html",
            "/login.html",
            "/Style.css",
            "//",
            "/app.js/",
            &too_long,
        ] {
            assert!(!exists(path), "{path}");
            assert_eq!(answer(path, None).status, 404, "{path}");
        }
    }

    #[test]
    fn pages_carry_the_policy_and_files_do_not() {
        for path in ["/", "/login", "/wall", "/pools/local", "/pools/local/agents/a"] {
            let page = answer(path, None);
            assert_eq!(page.status, 200);
            assert_eq!(header(&page, "Content-Type"), Some("text/html; charset=utf-8"));
            let policy = header(&page, "Content-Security-Policy").unwrap();
            assert!(policy.starts_with("default-src 'none'; "), "{policy}");
            assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
            assert!(!policy.contains("unsafe") && !policy.contains('*') && !policy.contains("  "));
            assert_eq!(header(&page, "Referrer-Policy"), Some("strict-origin"));
            assert_eq!(header(&page, "Cross-Origin-Opener-Policy"), Some("same-origin"));
            assert_eq!(header(&page, "Cache-Control"), Some("no-cache"));
        }
        for (path, kind) in [
            ("/style.css", "text/css; charset=utf-8"),
            ("/favicon.svg", "image/svg+xml; charset=utf-8"),
            ("/metrics-client.d.ts", "text/plain; charset=utf-8"),
        ] {
            assert_eq!(header(&answer(path, None), "Content-Type"), Some(kind));
        }
        let script = answer("/app.js", None);
        assert_eq!(header(&script, "Content-Type"), Some("text/javascript; charset=utf-8"));
        assert_eq!(header(&script, "Content-Security-Policy"), None);
    }

    #[test]
    fn an_entity_tag_that_matches_is_answered_with_304_and_no_body() {
        let whole = answer("/style.css", None);
        let tag = header(&whole, "ETag").unwrap().to_owned();
        assert!(tag.starts_with('"') && tag.ends_with('"') && tag.len() > 2, "{tag}");
        for matching in [tag.clone(), format!("W/{tag}"), format!("\"x\", {tag}"), "*".to_owned()] {
            let answer = answer("/style.css", Some(&matching));
            assert_eq!(answer.status, 304, "{matching}");
            assert!(answer.body.as_bytes().is_empty());
            assert_eq!(header(&answer, "ETag"), Some(tag.as_str()));
        }
        for other in ["", "\"x\"", tag.trim_matches('"'), "W/*"] {
            assert_eq!(answer("/style.css", Some(other)).status, 200, "{other}");
        }
        let index = answer("/", None);
        assert_ne!(header(&index, "ETag"), Some(tag.as_str()));
    }

    #[test]
    fn what_the_page_asks_for_is_there_and_of_this_origin() {
        for file in &FILES {
            let text = std::str::from_utf8(file.bytes).unwrap();
            for (opening, closing) in
                [("href=\"", '"'), ("src=\"", '"'), ("from \"./", '"'), ("\"/favicon", '"')]
            {
                for rest in text.split(opening).skip(1) {
                    let target = rest.split(closing).next().unwrap();
                    let path = match opening {
                        "from \"./" => format!("/{target}"),
                        "\"/favicon" => format!("/favicon{target}"),
                        _ => target.to_owned(),
                    };
                    // A fragment or a query stays on the page.
                    assert!(path.starts_with(['#', '?']) || exists(&path), "{}: {path}", file.name);
                }
            }
        }
    }

    #[test]
    fn every_file_of_the_dashboard_is_embedded() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/dashboard");
        let mut on_disk = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let path = match name.as_str() {
                // For the README, what serves the rest, and what has no path of its own.
                "pictures" | "mod.rs" | "page.rs" | "not-found.html" => continue,
                "index.html" => "/".to_owned(),
                "login.html" => "/login".to_owned(),
                _ => format!("/{name}"),
            };
            assert!(exists(&path), "{name}");
            on_disk += 1;
        }
        assert_eq!(on_disk, FILES.len());
    }

    #[test]
    fn refusals_for_people_are_pages_with_the_policy() {
        for (status, page) in [(404, not_found()), (401, login_failed())] {
            assert_eq!(page.status, status);
            assert_eq!(header(&page, "Content-Type"), Some("text/html; charset=utf-8"));
            assert_eq!(header(&page, "Content-Security-Policy"), Some(POLICY));
            assert_eq!(
                (header(&page, "Cache-Control"), header(&page, "ETag")),
                (Some("no-store"), None)
            );
            let text = std::str::from_utf8(page.body.as_bytes()).unwrap();
            for target in text.split("href=\"").chain(text.split("src=\"")).skip(1) {
                let path = target.split('"').next().unwrap();
                assert!(exists(path) || !path.starts_with('/'), "{path}");
            }
        }
    }

    #[test]
    fn a_failed_login_is_the_login_page_with_the_problem_beside_the_field() {
        let (plain, failed) = (answer("/login", None), login_failed());
        let [plain, failed] =
            [&plain, &failed].map(|page| std::str::from_utf8(page.body.as_bytes()).unwrap());
        for (before, after) in SHOWS_PROBLEM {
            assert_eq!((plain.matches(before).count(), failed.matches(before).count()), (1, 0));
            assert_eq!(failed.matches(after).count(), 1);
        }
    }

    #[test]
    fn pages_have_no_inline_script_or_style() {
        for file in FILES.iter().filter(|file| file.is_html()) {
            let text = std::str::from_utf8(file.bytes).unwrap();
            assert!(!text.contains("<style") && !text.contains(" style="), "{}", file.name);
            let handlers = text.split(" on").skip(1).filter_map(|rest| rest.split_once('='));
            for (name, _) in handlers {
                assert!(!name.bytes().all(|byte| byte.is_ascii_lowercase()), "on{name}");
            }
            assert!(text.split("<script").skip(1).all(|tag| tag.contains("src=")));
        }
    }
}
