//! Who needs a token is asked for it, told when it is wrong, and let in with the right one.

use super::hooks::{
    self, CARD, IS_LIVE, LOGIN, LOGIN_PROBLEM, LOGOUT, TOKEN, is_hidden, is_shown, pool_url,
    row_with,
};
use super::layout::{PEOPLES_WIDTHS, assert_fits};
use crate::support::http::heartbeat;
use crate::support::setup::{TOKEN_A, TOKEN_ALL};
use crate::support::tools::needs;
use crate::support::{Browser, Conn, Server, Setup};

#[test]
fn a_viewer_logs_in_after_a_wrong_try() {
    needs!(Chromium);
    let server = Server::start(&Setup::guarded().toml());
    let browser = Browser::open(&format!("http://{}/", server.addr()));
    browser.until("the login is shown", &is_shown(LOGIN));
    browser.shot("login");
    browser.until("its field has the focus", &format!("document.activeElement.matches('{TOKEN}')"));
    browser.type_text("not the token");
    browser.click(&format!("{LOGIN} button"));
    browser.until("it says that this was wrong", &is_shown(LOGIN_PROBLEM));
    assert_eq!(
        browser.text(&hooks::text_of(LOGIN_PROBLEM)),
        "The server does not know this token."
    );
    assert_eq!(browser.text(&format!("document.querySelector('{TOKEN}').ariaInvalid")), "true");
    let describes = format!(
        "document.querySelector('{TOKEN}').getAttribute('aria-describedby').includes(
             document.querySelector('{LOGIN_PROBLEM}').id)"
    );
    assert_eq!(browser.eval(&describes), true);
    let beside = format!(
        "document.querySelector('{LOGIN_PROBLEM}').getBoundingClientRect().top
             - document.querySelector('{TOKEN}').getBoundingClientRect().bottom"
    );
    let beside: f64 = browser.get(&beside);
    assert!((0.0..20.0).contains(&beside), "{beside} px from the field to its problem");
    let role = browser.text(&format!("document.querySelector('{LOGIN_PROBLEM}').role"));
    assert_eq!(role, "alert");
    browser.shot("login-wrong");

    // What was typed is selected, and typing replaces it.
    browser.type_text(TOKEN_ALL);
    browser.press("Enter");
    browser.until("the login is gone", &is_hidden(LOGIN));
    browser.until(
        "both pools are there",
        &format!("document.querySelectorAll('{CARD}').length === 2"),
    );
    browser.until("the page is live", IS_LIVE);

    // The cookie is no script's business, and stays.
    assert_eq!(browser.text("document.cookie"), "");
    browser.reload();
    browser.until("the page is live without another login", IS_LIVE);
    assert_eq!(browser.faults_of_its_own(), []);
}

/// Who was on the way to something arrives there.
#[test]
fn a_login_keeps_the_address() {
    needs!(Chromium);
    let server = Server::start(&Setup::guarded().toml());
    assert_eq!(Conn::open(server.addr()).ping("agent", &heartbeat(1.0)).status, 200);
    let url = format!("{}/agents/agent", pool_url(server.addr()));
    let browser = Browser::open(&url);
    browser.until("its field has the focus", &format!("document.activeElement.matches('{TOKEN}')"));
    browser.until("the title says so", "document.title.startsWith('Login needed')");
    browser.type_text(TOKEN_A);
    browser.press("Enter");
    browser.until("the agent is shown", &is_shown("#agent"));
    assert_eq!(browser.text("location.href"), url);
    assert_eq!(browser.text("document.activeElement.id"), "main");
    assert_eq!(browser.faults_of_its_own(), []);
}

#[test]
fn a_viewer_logs_out_and_the_page_shows_nothing_any_more() {
    needs!(Chromium);
    let server = Server::start(&Setup::guarded().toml());
    assert_eq!(Conn::open(server.addr()).ping("agent", &heartbeat(1.0)).status, 200);
    let browser = Browser::open(&format!("{}?token={TOKEN_A}", pool_url(server.addr())));
    row_with(&browser, "agent", "is shown", |_| true);
    for (width, height) in PEOPLES_WIDTHS {
        browser.size(width, height);
        browser.shot(&format!("logged-in-{width}"));
        assert_fits(&browser, &format!("logged in at {width}"));
    }
    browser.size(1280, 800);
    // A page that is loaded anew still knows that there is a login.
    browser.reload();
    browser.until("the page is live", IS_LIVE);
    browser.until("it can be left", &is_shown(LOGOUT));
    browser.click(LOGOUT);
    browser.until("the login is shown", &is_shown(LOGIN));
    browser.until("there is nothing to leave", &is_hidden(LOGOUT));
    assert_eq!(hooks::agents(&browser).len(), 0);
    let with_cookie = "fetch('/api/v1/agent-pools').then(({ status }) => status)";
    assert_eq!(browser.eval(with_cookie), 401, "the cookie is still there");
    assert_eq!(browser.faults_of_its_own(), []);
}

#[test]
fn who_needed_no_login_is_not_asked_to_log_out() {
    needs!(Chromium);
    let server = Server::start(&Setup::open().toml());
    let browser = Browser::open(&pool_url(server.addr()));
    browser.until("the page is live", IS_LIVE);
    assert_eq!(browser.eval(&is_shown(LOGOUT)), false);
    assert_eq!(browser.faults(), []);
}

#[test]
fn a_token_in_the_address_opens_the_page_and_leaves_the_address() {
    needs!(Chromium);
    let server = Server::start(&Setup::guarded().toml());
    assert_eq!(Conn::open(server.addr()).ping("agent", &heartbeat(1.0)).status, 200);
    let url = pool_url(server.addr());
    let browser = Browser::open(&format!("{url}?token={TOKEN_A}"));
    row_with(&browser, "agent", "is shown", |_| true);
    browser.until("the page is live", IS_LIVE);
    assert_eq!(browser.text("location.href"), url);
    assert_eq!(browser.eval("history.length"), 2, "about:blank and the page");
    assert_eq!(browser.faults(), []);

    browser.forget();
    browser.go(&format!("{url}?token=not-the-token"));
    browser.until("the login is shown", &is_shown(LOGIN));
    browser.until("it says what was wrong", &is_shown(LOGIN_PROBLEM));
    assert_eq!(browser.text("location.href"), url);
    assert_eq!(browser.faults_of_its_own(), []);
}
