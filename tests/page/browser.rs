//! A real Chromium, driven through its WebDriver.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::time::Duration;

use axum::http::Method;
use fantoccini::wd::{Capabilities, WebDriverCompatibleCommand};
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use reqwest::Url;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::support::not_run::not_run;
use crate::support::until;

/// How often a driver may choose a port that is taken. Each browser test starts one, six at a time.
const ATTEMPTS: usize = 20;

/// The height of a window.
const HEIGHT: u64 = 900;

/// A browser with a profile of its own, which ends when this is dropped.
pub struct Browser {
    driver: Child,
    runtime: Runtime,
    client: Client,
    _profile: TempDir,
}

/// How a browser shows pages.
#[derive(Clone, Copy)]
pub struct Window {
    pub has_script: bool,
    pub is_dark: bool,
    pub width: u32,
}

impl Window {
    pub const DEFAULT: Self = Self { has_script: true, is_dark: false, width: 1024 };
}

impl Browser {
    /// Starts a browser; `None` if the machine has no Chromium, which is reported at the end of all tests.
    pub fn start(window: Window) -> Option<Self> {
        let missing = ["chromium", "chromedriver"]
            .into_iter()
            .find(|program| Command::new(program).arg("--version").output().is_err());
        if let Some(program) = missing {
            not_run(
                "the status page in a browser",
                if program == "chromedriver" { "chromium-driver" } else { program },
            );
            return None;
        }
        let profile = tempfile::tempdir().expect("a folder");
        let (driver, port) = start_driver(&profile.path().join("driver.log"));
        let runtime = Runtime::new().expect("a runtime");
        let capabilities = capabilities(window, &profile);
        let url = format!("http://127.0.0.1:{port}");
        let mut builder = ClientBuilder::new(HttpConnector::new());
        let client = runtime.block_on(builder.capabilities(capabilities).connect(&url)).expect("a browser");
        let browser = Self { driver, runtime, client, _profile: profile };
        browser.resize(window.width);
        Some(browser)
    }

    pub fn open(&self, url: &str) {
        self.runtime.block_on(self.client.goto(url)).unwrap_or_else(|error| panic!("{url}: {error}"));
    }

    /// The visible text of an element, as soon as there is one.
    #[track_caller]
    pub fn text(&self, selector: &str) -> String {
        until(&format!("there is {selector}"), || self.try_text(selector))
    }

    /// Waits until the text of an element satisfies `is_right`.
    #[track_caller]
    pub fn until_text(&self, selector: &str, is_right: impl Fn(&str) -> bool) -> String {
        until(&format!("{selector} is right"), || self.try_text(selector).filter(|text| is_right(text)))
    }

    fn try_text(&self, selector: &str) -> Option<String> {
        let text = async { self.client.find(Locator::Css(selector)).await?.text().await };
        self.runtime.block_on(text).ok()
    }

    pub fn has(&self, selector: &str) -> bool {
        self.runtime.block_on(self.client.find(Locator::Css(selector))).is_ok()
    }

    #[track_caller]
    pub fn fill(&self, selector: &str, text: &str) {
        let fill = async { self.client.find(Locator::Css(selector)).await?.send_keys(text).await };
        self.runtime.block_on(fill).unwrap_or_else(|error| panic!("{selector}: {error}"));
    }

    #[track_caller]
    pub fn click(&self, selector: &str) {
        let click = async { self.client.find(Locator::Css(selector)).await?.click().await };
        self.runtime.block_on(click).unwrap_or_else(|error| panic!("{selector}: {error}"));
    }

    /// Runs a script in the page; the page's policy does not apply to it.
    #[track_caller]
    pub fn run(&self, script: &str) -> Value {
        self.runtime
            .block_on(self.client.execute(script, Vec::new()))
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// Runs a script that calls its last argument with its result.
    #[track_caller]
    pub fn run_async(&self, script: &str) -> Value {
        self.runtime
            .block_on(self.client.execute_async(script, Vec::new()))
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// Gives pages another width. A window itself is never narrower than 500 pixels.
    pub fn resize(&self, width: u32) {
        self.set_size(width.into(), HEIGHT);
    }

    fn set_size(&self, width: u64, height: u64) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        let set = self.client.issue_cmd(DevTools("Emulation.setDeviceMetricsOverride", size));
        self.runtime.block_on(set).expect("another size");
    }

    /// A picture of the whole page.
    pub fn picture(&self) -> Vec<u8> {
        let [height, width] = ["document.documentElement.scrollHeight", "window.innerWidth"]
            .map(|size| self.run(&format!("return {size}")).as_u64().expect("a number"));
        self.set_size(width, height.min(8000));
        let picture = self.runtime.block_on(self.client.screenshot()).expect("a picture");
        self.set_size(width, HEIGHT);
        picture
    }

    /// What this finds in the page's frame of this number, beginning with 0.
    pub fn in_frame<T>(&self, number: u16, find: impl FnOnce(&Self) -> T) -> T {
        self.runtime.block_on(self.client.enter_frame(number)).expect("a frame");
        let found = find(self);
        self.runtime.block_on(self.client.enter_parent_frame()).expect("its page");
        found
    }

    /// How many pixels the page is wider than the window.
    pub fn overflow(&self) -> i64 {
        self.run("return document.documentElement.scrollWidth - document.documentElement.clientWidth")
            .as_i64()
            .expect("a number")
    }
}

/// A command of the browser's own protocol, which WebDriver has none for.
#[derive(Debug)]
struct DevTools(&'static str, Value);

impl WebDriverCompatibleCommand for DevTools {
    fn endpoint(&self, base_url: &Url, session: Option<&str>) -> Result<Url, <Url as FromStr>::Err> {
        base_url.join(&format!("session/{}/goog/cdp/execute", session.unwrap_or_default()))
    }

    fn method_and_body(&self, _: &Url) -> (Method, Option<String>) {
        (Method::POST, Some(json!({"cmd": self.0, "params": self.1}).to_string()))
    }
}

/// Starts a driver, and reads its port from its standard output (with --silent it would not print it). It chooses a free port
/// for IPv4 and ends if another program has the same one for IPv6; then this starts another.
fn start_driver(log: &Path) -> (Child, u16) {
    for _ in 0..ATTEMPTS {
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(File::create(log).expect("a file"))
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver starts");
        let port = until("chromedriver prints its port or ends", || {
            let printed = fs::read_to_string(log).ok()?;
            let port = printed
                .split_once("was started successfully on port ")
                .and_then(|(_, rest)| rest.split_once('.'));
            match port {
                Some((port, _)) => Some(Some(port.parse::<u16>().expect("a port"))),
                None => driver.try_wait().expect("a child of this process").map(|_| None),
            }
        });
        if let Some(port) = port {
            return (driver, port);
        }
    }
    panic!("chromedriver ended {ATTEMPTS} times: {}", fs::read_to_string(log).unwrap_or_default());
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Ends the browser; the driver alone would leave it.
        let close = self.client.clone().close();
        let _ = self.runtime.block_on(async { tokio::time::timeout(Duration::from_secs(10), close).await });
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

fn capabilities(window: Window, profile: &TempDir) -> Capabilities {
    let mut arguments: Vec<String> = [
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--hide-scrollbars",
        "--no-proxy-server",
    ]
    .map(str::to_owned)
    .into();
    arguments.push(format!("--user-data-dir={}", profile.path().join("profile").display()));
    if window.is_dark {
        arguments.push("--force-dark-mode".to_owned());
        arguments.push("--blink-settings=preferredColorScheme=0".to_owned());
    }
    let script = if window.has_script { 1 } else { 2 };
    let options = json!({
        "binary": "/usr/bin/chromium", "args": arguments,
        "prefs": {"profile.managed_default_content_settings.javascript": script},
    });
    Capabilities::from_iter([("goog:chromeOptions".to_owned(), options)])
}
