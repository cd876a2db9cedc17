//! A browser with one page, driven over the DevTools protocol: user input, the page's content, and
//! the errors that it reports. Asserts nothing, and knows nothing about our page.

mod heard;
mod process;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use headless_chrome::Tab;
use headless_chrome::protocol::cdp::types::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::wait::{DEADLINE, within};
pub(crate) use heard::{Fault, Kind};
use heard::{Heard, LISTEN};
use process::Process;

/// A call of the protocol with JSON parameters and reply: the crate's types belong to another
/// version of the protocol than the browser's.
macro_rules! call {
    ($tab:expr, $name:literal, $params:tt) => {{
        #[derive(Debug, Serialize)]
        #[serde(transparent)]
        struct Call(Value);
        impl Method for Call {
            const NAME: &'static str = $name;
            type ReturnObject = Value;
        }
        $tab.call_method(Call(json!($params))).unwrap_or_else(|error| panic!("{}: {error}", $name))
    }};
}

/// A browser with a profile of its own; dropping it ends it and removes the profile.
pub(crate) struct Browser {
    tab: Arc<Tab>,
    heard: Arc<Heard>,
    /// Keeps the connection.
    driver: headless_chrome::Browser,
    /// Dropped last.
    _process: Process,
}

impl Browser {
    /// With an empty page of 1280 by 800, light, English.
    pub(crate) fn start() -> Self {
        let process = Process::start();
        // As long as the longest test: the driver also disconnects from a browser that is silent
        // for this time.
        let timeout = Duration::from_secs(1800);
        let driver =
            headless_chrome::Browser::connect_with_timeout(process.url().to_owned(), timeout)
                .unwrap();
        let tab = driver.new_tab().unwrap();
        let heard = Arc::new(Heard::default());
        tab.add_event_listener(heard.clone()).unwrap();
        for domain in [Domain::Runtime, Domain::Log, Domain::Network] {
            domain.enable(&tab);
        }
        // What the page's thread computes, not what it waits for while others have the processor.
        call!(tab, "Performance.enable", { "timeDomain": "threadTicks" });
        let browser = Self { tab, heard, driver, _process: process };
        browser.before_scripts(LISTEN);
        browser.size(1280, 800);
        browser.dark(false);
        browser.languages("en");
        browser
    }

    /// [`Browser::start`], then [`Browser::go`].
    pub(crate) fn open(url: &str) -> Self {
        let browser = Self::start();
        browser.go(url);
        browser
    }

    /// Runs `script` in every page that is loaded from now on, before the page's own scripts.
    pub(crate) fn before_scripts(&self, script: &str) {
        call!(self.tab, "Page.addScriptToEvaluateOnNewDocument", { "source": script });
    }

    /// Loads `url`.
    pub(crate) fn go(&self, url: &str) {
        let reply = call!(self.tab, "Page.navigate", { "url": url });
        assert_eq!(reply.get("errorText"), None, "going to {url}");
        self.until("the page is loaded", "document.readyState === 'complete'");
    }

    pub(crate) fn reload(&self) {
        // Tells the old page from the new one.
        self.eval("window.beforeReload = true");
        call!(self.tab, "Page.reload", {});
        self.until(
            "the page is reloaded",
            "!window.beforeReload && document.readyState === 'complete'",
        );
    }

    /// In CSS pixels.
    pub(crate) fn size(&self, width: u32, height: u32) {
        call!(self.tab, "Emulation.setDeviceMetricsOverride", {
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false
        });
    }

    /// `prefers-color-scheme`.
    pub(crate) fn dark(&self, dark: bool) {
        let scheme = if dark { "dark" } else { "light" };
        call!(self.tab, "Emulation.setEmulatedMedia", {
            "features": [{ "name": "prefers-color-scheme", "value": scheme }]
        });
    }

    /// `prefers-reduced-motion`.
    pub(crate) fn reduced_motion(&self, reduced: bool) {
        let value = if reduced { "reduce" } else { "no-preference" };
        call!(self.tab, "Emulation.setEmulatedMedia", {
            "features": [{ "name": "prefers-reduced-motion", "value": value }]
        });
    }

    /// The preferred languages, such as `zh-CN,en`, for pages that are loaded from now on.
    pub(crate) fn languages(&self, languages: &str) {
        let agent = self.text("navigator.userAgent");
        call!(self.tab, "Emulation.setUserAgentOverride", {
            "userAgent": agent, "acceptLanguage": languages
        });
    }

    /// The value of a JavaScript expression, or of its promise.
    pub(crate) fn eval(&self, expression: &str) -> Value {
        self.try_eval(expression).unwrap_or_else(|error| panic!("{error} in {expression:.500}"))
    }

    /// [`Browser::eval`], deserialized.
    pub(crate) fn get<T: DeserializeOwned>(&self, expression: &str) -> T {
        let value = self.eval(expression);
        serde_json::from_value(value.clone())
            .unwrap_or_else(|error| panic!("{error}: {value} from {expression:.500}"))
    }

    /// [`Browser::eval`] of a string.
    pub(crate) fn text(&self, expression: &str) -> String {
        self.get(expression)
    }

    /// Waits until the expression is truthy, and returns its value.
    pub(crate) fn until(&self, what: &str, expression: &str) -> Value {
        self.until_within(DEADLINE, what, expression)
    }

    /// [`Browser::until`] with another deadline.
    pub(crate) fn until_within(&self, wait: Duration, what: &str, expression: &str) -> Value {
        let mut last = Ok(Value::Null);
        let found = within(wait, || {
            // Fails while another page is being loaded.
            last = self.try_eval(expression);
            last.clone().ok().filter(is_truthy)
        });
        found.unwrap_or_else(|| panic!("not within {wait:?}: {what}; last: {last:?}"))
    }

    /// `key` as in `KeyboardEvent.key`.
    pub(crate) fn press(&self, key: &str) {
        self.tab.press_key(key).unwrap();
    }

    /// Types into the focused element.
    pub(crate) fn type_text(&self, text: &str) {
        self.tab.type_str(text).unwrap();
    }

    /// Clicks into the middle of the first element that matches `selector`.
    pub(crate) fn click(&self, selector: &str) {
        self.mouse(selector, &["mousePressed", "mouseReleased"]);
    }

    /// Moves the pointer to the middle of the first element that matches `selector`.
    pub(crate) fn point_at(&self, selector: &str) {
        self.mouse(selector, &["mouseMoved"]);
    }

    fn mouse(&self, selector: &str, kinds: &[&str]) {
        let [x, y]: [f64; 2] = self.get(&format!(
            "(() => {{ const element = document.querySelector({selector:?});
               element.scrollIntoView({{ block: 'center' }});
               const box = element.getBoundingClientRect();
               return [box.x + box.width / 2, box.y + box.height / 2]; }})()"
        ));
        for kind in kinds {
            let button = if *kind == "mouseMoved" { "none" } else { "left" };
            call!(self.tab, "Input.dispatchMouseEvent", {
                "type": kind, "x": x, "y": y, "button": button, "clickCount": 1
            });
        }
    }

    /// Freezes the page, as when a laptop is closed, or resumes it.
    pub(crate) fn freeze(&self, frozen: bool) {
        let state = if frozen { "frozen" } else { "active" };
        call!(self.tab, "Page.setWebLifecycleState", { "state": state });
    }

    /// Tells the page that the network is lost or back. Open connections stay open.
    pub(crate) fn offline(&self, offline: bool) {
        call!(self.tab, "Network.emulateNetworkConditions", {
            "offline": offline, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1
        });
    }

    /// Opens another tab in front, which hides the page until it is dropped.
    pub(crate) fn cover(&self) -> Cover<'_> {
        let tab = self.driver.new_tab().unwrap();
        call!(tab, "Page.bringToFront", {});
        Cover { tab, page: &self.tab }
    }

    /// Deletes cookies.
    pub(crate) fn forget(&self) {
        call!(self.tab, "Network.clearBrowserCookies", {});
    }

    /// Stops the network events, which cost a busy page time.
    pub(crate) fn ignore_network(&self) {
        call!(self.tab, "Network.disable", {});
    }

    /// The browser's metrics of the page after garbage collection: of three collections the one
    /// with the smallest heap, since a single one may leave garbage.
    pub(crate) fn metrics(&self) -> BTreeMap<String, f64> {
        let heap = |metrics: &BTreeMap<String, f64>| metrics["JSHeapUsedSize"];
        let collected = [(); 3].map(|()| self.metrics_after_collection());
        collected.into_iter().min_by(|a, b| heap(a).total_cmp(&heap(b))).unwrap()
    }

    fn metrics_after_collection(&self) -> BTreeMap<String, f64> {
        call!(self.tab, "HeapProfiler.collectGarbage", {});
        self.metrics_as_they_are()
    }

    /// The browser's metrics of the page, without a collection, which costs the page time.
    pub(crate) fn metrics_as_they_are(&self) -> BTreeMap<String, f64> {
        let reply = call!(self.tab, "Performance.getMetrics", {});
        let metrics = reply["metrics"].as_array().unwrap();
        metrics
            .iter()
            .map(|metric| {
                (metric["name"].as_str().unwrap().to_owned(), metric["value"].as_f64().unwrap())
            })
            .collect()
    }

    /// The errors so far: on the console, uncaught exceptions, policy violations.
    pub(crate) fn faults(&self) -> Vec<Fault> {
        self.settle();
        self.heard.faults()
    }

    /// [`Browser::faults`] without network errors, which an unreachable server causes.
    pub(crate) fn faults_of_its_own(&self) -> Vec<Fault> {
        self.faults().into_iter().filter(|fault| fault.kind != Kind::Network).collect()
    }

    /// The URLs of all requests and WebSockets so far, except `data:`.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.settle();
        self.heard.requests()
    }

    /// Saves a screenshot as `NAME.png` in the directory `AGENT_METRICS_SHOTS`, if that is set.
    pub(crate) fn shot(&self, name: &str) {
        let Some(directory) = std::env::var_os("AGENT_METRICS_SHOTS") else { return };
        let format = headless_chrome::protocol::cdp::Page::CaptureScreenshotFormatOption::Png;
        let png = self.tab.capture_screenshot(format, None, None, true).unwrap();
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(std::path::Path::new(&directory).join(format!("{name}.png")), png).unwrap();
    }

    fn try_eval(&self, expression: &str) -> Result<Value, String> {
        evaluate(&self.tab, expression)
    }

    /// Waits for all events so far, by sending one more and waiting for that.
    fn settle(&self) {
        let mark = self.heard.next_mark();
        self.eval(&format!("console.debug({mark:?}), 0"));
        self.heard.wait_for(&mark);
    }
}

fn evaluate(tab: &Tab, expression: &str) -> Result<Value, String> {
    #[derive(Debug, Serialize)]
    struct Evaluate(Value);
    impl Method for Evaluate {
        const NAME: &'static str = "Runtime.evaluate";
        type ReturnObject = Value;
    }
    let params = json!({
        "expression": expression, "returnByValue": true, "awaitPromise": true
    });
    let reply = tab.call_method(Evaluate(params)).map_err(|error| error.to_string())?;
    match reply.get("exceptionDetails") {
        Some(details) => Err(details["exception"]["description"]
            .as_str()
            .map_or_else(|| details.to_string(), str::to_owned)),
        None => Ok(reply["result"]["value"].clone()),
    }
}

/// A tab in front of the page; see [`Browser::cover`].
pub(crate) struct Cover<'page> {
    tab: Arc<Tab>,
    page: &'page Tab,
}

impl Cover<'_> {
    /// Loads `url` in this tab.
    pub(crate) fn go(&self, url: &str) {
        call!(self.tab, "Page.navigate", { "url": url });
    }

    /// Waits until the expression is truthy in this tab.
    pub(crate) fn until(&self, what: &str, expression: &str) {
        let mut last = Ok(Value::Null);
        let found = within(DEADLINE, || {
            last = evaluate(&self.tab, expression);
            last.clone().ok().filter(is_truthy)
        });
        assert!(found.is_some(), "not within {DEADLINE:?}: {what}; last: {last:?}");
    }
}

impl Drop for Cover<'_> {
    fn drop(&mut self) {
        let _ = self.tab.close(false);
        let _ = self.page.bring_to_front();
    }
}

/// Of the protocol's events.
enum Domain {
    Runtime,
    Log,
    Network,
}

impl Domain {
    fn enable(&self, tab: &Tab) {
        match self {
            Self::Runtime => call!(tab, "Runtime.enable", {}),
            Self::Log => call!(tab, "Log.enable", {}),
            Self::Network => call!(tab, "Network.enable", {}),
        };
    }
}

fn is_truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(truth) => *truth,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(_) | Value::Object(_) => true,
    }
}
