//! How the page looks: at all widths, in both themes, in good and in bad times.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::json;

use super::browser::{Browser, Window};
use super::{address, log_in, submit};
use crate::http::v1::client::Api;
use crate::support::disk::SmallDisk;
use crate::support::{Place, Simulated, until, until_true};

/// A telephone, a laptop and a large screen.
const WIDTHS: [u32; 3] = [360, 1024, 1920];

/// A receiver that is down.
const DOWN: &str =
    "sink=[{type=\"webhook\",url=\"http://127.0.0.1:9/\",secret=\"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"}]";

/// The elements outside of what scrolls whose contents are wider than they are.
const CLIPPED: &str = "return [...document.querySelectorAll('body *')].filter((one) => one.scrollWidth > one.clientWidth + 1
    && !one.closest('.scroll, svg, input, select') && getComputedStyle(one).display !== 'inline' && one.clientWidth > 0)
    .map((one) => one.outerHTML.slice(0, 200))";

/// The tables outside of what scrolls that are wider than the place they are in.
const TOO_WIDE: &str = "return [...document.querySelectorAll('table')].filter((one) => {
    const place = one.parentElement, end = place.getBoundingClientRect().right - parseFloat(getComputedStyle(place).paddingRight);
    return !one.closest('.scroll') && one.getBoundingClientRect().right > end + 1;
}).map((one) => one.outerHTML.slice(0, 200))";

#[track_caller]
fn fits(browser: &Browser, path: &str, width: u32) {
    assert_eq!(browser.overflow(), 0, "{path} at {width} is too wide");
    for wrong in [CLIPPED, TOO_WIDE] {
        assert_eq!(browser.run(wrong), json!([]), "{path} at {width}");
    }
}

#[test]
fn nothing_is_clipped_or_wider_than_the_window_on_a_telephone_and_on_a_large_screen() {
    for settings in [&[][..], &[DOWN, "api.key=wrong"]] {
        let api = Api::with(settings);
        let mut client = api.served.daemon.client();
        for number in 0..20 {
            submit(&mut client, &format!("sim-delivered-{number}"), "order-1");
            submit(&mut client, &format!("sim-waiting-{number}"), &"long-reference-".repeat(20));
        }
        let level = if settings.is_empty() { "good" } else { "warning" };
        until_true("the daemon is well, or it is not", || client.stats()["verdict"]["level"] == level);
        let Some(browser) = Browser::start(Window::DEFAULT) else { return };
        log_in(&browser, &api, &api.admin);
        for path in [
            "/",
            "/pins?state=in_flight",
            "/pins?pin=sim-waiting-1",
            "/actions",
            "/actions/cancel?text=long*",
            "/login",
        ] {
            browser.open(&address(&api, path));
            for width in WIDTHS {
                browser.resize(width);
                fits(&browser, path, width);
            }
        }
    }
}

/// Pictures of the page for people to look at, in `target/screenshots`:
/// `cargo test --test integration page::looks -- --ignored`.
#[test]
#[ignore = "makes pictures, and checks only that nothing is clipped"]
fn pictures() {
    for (state, settings) in [("healthy", &[][..]), ("refused", &["api.key=wrong"]), ("down", &[DOWN])] {
        let api = Api::with(settings);
        let mut client = api.served.daemon.client();
        for number in 0..200 {
            submit(&mut client, &format!("sim-delivered-{number}"), "order-1");
            submit(&mut client, &format!("sim-waiting-{number}"), "order-2");
        }
        until("some time has passed", || {
            let page = api.served.get("/").body;
            page.contains("in flight: now").then_some(())
        });
        let log_in = |browser: &Browser| log_in(browser, &api, &api.admin);
        let paths = [
            ("page", "/"),
            ("pin", "/pins?pin=sim-waiting-1"),
            ("list", "/pins?state=in_flight"),
            ("actions", "/actions/cancel?text=order-2"),
        ];
        take(state, api.address(), &paths, log_in);
    }
    // A daemon whose disk is full, seen without a token.
    let api = Simulated::start();
    let place = Place::in_folders(&api.base_url());
    place.configure("[http]\nlisten = \"127.0.0.1:0\"\n");
    let Some(disk) = SmallDisk::mount(&place.data, 16 << 20) else { return };
    let daemon = place.spawn_by(disk.within(&place.command())).ready();
    let mut client = daemon.client();
    disk.fill();
    let mut number = 0;
    until_true("a submit is refused", || {
        number += 1;
        client.ask(format!("sim-waiting-{number}"))["ok"] == false
    });
    take("full", daemon.http_address(), &[("page", "/")], |_| {});
}

/// Takes pictures of these pages, each with a name, at all widths and in both themes.
fn take(state: &str, address: SocketAddr, paths: &[(&str, &str)], log_in: impl Fn(&Browser)) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/screenshots");
    fs::create_dir_all(&folder).unwrap();
    for is_dark in [false, true] {
        let Some(browser) = Browser::start(Window { is_dark, ..Window::DEFAULT }) else { return };
        log_in(&browser);
        let theme = if is_dark { "dark" } else { "light" };
        for (name, path) in paths {
            browser.open(&format!("http://{address}{path}"));
            for width in WIDTHS {
                browser.resize(width);
                fits(&browser, path, width);
                fs::write(folder.join(format!("{state}-{name}-{width}-{theme}.png")), browser.picture())
                    .unwrap();
            }
        }
    }
}
