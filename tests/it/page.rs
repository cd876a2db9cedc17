//! The page as a browser gets it: every file that it leads to is there, typed, tagged and of this
//! server; nothing is asked of any other.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use crate::support::http::Response;
use crate::support::{Request, Server};

/// What precedes a reference in a file of the page, and what ends it.
const REFERENCES: [(&str, char); 6] = [
    ("href=\"", '"'),
    ("src=\"", '"'),
    ("action=\"", '"'),
    ("from \"", '"'),
    ("import(\"", '"'),
    ("url(", ')'),
];

#[test]
fn the_page_and_all_that_it_asks_for_is_served_typed_tagged_and_of_this_server() {
    let server = Server::dev();
    let mut seen = BTreeSet::new();
    let mut ahead =
        ["/", "/login", "/pools/local", "/metrics-client.d.ts"].map(str::to_owned).to_vec();
    while let Some(path) = ahead.pop() {
        if !seen.insert(path.clone()) {
            continue;
        }
        let whole = check(server.addr(), &path);
        for reference in references(&whole.text()) {
            ahead.push(on_this_server(&reference, &path));
        }
    }
    // The pages, and at least one script, style and icon: the search above finds what there is.
    let has = |ending: &str| seen.iter().any(|path| path.ends_with(ending));
    assert!(has(".js") && has(".css") && has(".svg"), "{seen:?}");
}

/// Asks for `path` in every way that a browser does.
fn check(addr: SocketAddr, path: &str) -> Response {
    let whole = Request::get(path).send(addr);
    assert_eq!(whole.status, 200, "{path}");
    assert!(!whole.body.is_empty(), "{path}");
    assert_eq!(whole.header("Content-Type"), Some(content_type(path)), "{path}");
    assert_eq!(whole.header("X-Content-Type-Options"), Some("nosniff"), "{path}");
    let is_page = content_type(path).starts_with("text/html");
    assert_eq!(whole.header("Content-Security-Policy").is_some(), is_page, "{path}");
    if let Some(policy) = whole.header("Content-Security-Policy") {
        confines_to_this_server(policy);
    }

    let head = Request::new("HEAD", path).send(addr);
    assert_eq!((head.status, steady(&head)), (200, steady(&whole)), "{path}");

    let tag = whole.header("ETag").expect("an entity tag");
    let again = Request::get(path).header("If-None-Match", tag).send(addr);
    assert_eq!((again.status, again.header("ETag")), (304, Some(tag)), "{path}");
    let other = Request::get(path).header("If-None-Match", "\"other\"").send(addr);
    assert_eq!((other.status, &other.body), (200, &whole.body), "{path}");
    whole
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map(|(_, ending)| ending) {
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("ts") => "text/plain; charset=utf-8",
        Some("svg") => "image/svg+xml; charset=utf-8",
        _ => "text/html; charset=utf-8",
    }
}

/// Nothing is allowed but what is named, and what is named is of this server or in the page
/// itself; no script comes from text.
fn confines_to_this_server(policy: &str) {
    let directives: Vec<_> = policy.split(';').map(|part| part.trim().to_owned()).collect();
    for needed in ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"] {
        assert!(directives.iter().any(|directive| directive == needed), "{needed} in {policy}");
    }
    for directive in &directives {
        let (name, sources) = directive.split_once(' ').unwrap();
        for source in sources.split(' ') {
            let allowed = matches!(source, "'none'" | "'self'" | "'script'")
                || (name, source) == ("img-src", "data:");
            assert!(allowed, "{source} in {directive}");
        }
    }
}

/// All headers but those that tell the moment.
fn steady(response: &Response) -> Vec<(String, String)> {
    response.headers.iter().filter(|(name, _)| name != "Date").cloned().collect()
}

/// Everything in `text` that makes a browser ask for something.
fn references(text: &str) -> Vec<String> {
    let code = without_comments(text);
    let following = |(before, end): (&str, char)| -> Vec<String> {
        let rests = code.split(before).skip(1);
        rests.map(|rest| rest.split(end).next().unwrap().trim_matches('"').to_owned()).collect()
    };
    REFERENCES.into_iter().flat_map(following).collect()
}

/// Without lines that are comments: examples there ask for nothing.
fn without_comments(text: &str) -> String {
    let is_comment = |line: &&str| ["//", "/*", "* "].iter().any(|c| line.trim().starts_with(c));
    text.lines().filter(|line| !is_comment(line)).collect::<Vec<_>>().join("\n")
}

/// The path on this server that `reference`, found at `path`, leads to.
fn on_this_server(reference: &str, path: &str) -> String {
    if let Some(file) = reference.strip_prefix("./") {
        return format!("/{file}");
    }
    // A fragment, or another view of the same page.
    if reference.starts_with(['#', '?']) {
        return path.to_owned();
    }
    let is_local = reference.starts_with('/') && !reference.starts_with("//");
    assert!(is_local, "{path} asks for {reference}");
    reference.to_owned()
}
