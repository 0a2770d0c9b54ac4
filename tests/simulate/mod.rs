//! `pinwatch simulate` as a client sees it: its answers, and how each fault appears.

use std::time::Duration;

use base64::Engine;
use pinwatch::outcome::{CallStatus, SmsStatus, Status};
use pinwatch::simulate::{Known, Life, LifeSettings, Settings, Simulator};
use reqwest::header::{AUTHORIZATION, RETRY_AFTER};
use reqwest::{Client, Response, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpListener;

const PIN: &str = "9C817C6F8AF3D48F9FE553282AFA2B67";

async fn start(settings: Settings) -> Simulator {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    Simulator::start(settings, listener).unwrap()
}

fn faulty(rates: &[&str]) -> Settings {
    let faults = rates.iter().map(|rate| rate.parse().unwrap()).collect();
    Settings { faults, slow_every: Duration::from_millis(2), ..Settings::default() }
}

/// Ignores proxies of the environment, and has a short timeout for stalls.
fn client() -> Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().no_proxy().timeout(Duration::from_secs(5)).build().unwrap()
}

fn url(simulator: &Simulator, pin: &str) -> String {
    format!("{}/2fa/1/pin/{pin}/status", simulator.base_url())
}

async fn ask(client: &Client, simulator: &Simulator, pin: &str) -> reqwest::Result<Response> {
    client.get(url(simulator, pin)).header(AUTHORIZATION, "App demo-key").send().await
}

async fn json_of(response: Response) -> Value {
    serde_json::from_slice(&response.bytes().await.unwrap()).unwrap()
}

/// The kind of an error.
fn kind(error: &reqwest::Error) -> &'static str {
    match () {
        () if error.is_timeout() => "timeout",
        () if error.is_body() || error.is_decode() => "body",
        () if error.is_connect() => "connect",
        () => "request",
    }
}

#[tokio::test]
async fn a_pin_is_answered_only_with_the_right_key_or_user_name() {
    let settings = Settings { basic: Some("user:pass".into()), ..Settings::default() };
    let (simulator, client) = (start(settings).await, client());
    let basic = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode("user:pass"));
    for good in ["App demo-key", &basic] {
        let response = client.get(url(&simulator, PIN)).header(AUTHORIZATION, good).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
    }
    for bad in [None, Some("App demo-kez"), Some("App demo-key2"), Some("demo-key"), Some("Basic x")] {
        let mut request = client.get(url(&simulator, PIN));
        if let Some(bad) = bad {
            request = request.header(AUTHORIZATION, bad);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{bad:?}");
        let error = &json_of(response).await["requestError"]["serviceException"];
        assert_eq!(*error, json!({"messageId": "UNAUTHORIZED", "text": "Invalid login details"}));
    }
    let counts = simulator.stop().await;
    assert_eq!((counts.requests, counts.ok, counts.bad_keys, counts.client_errors), (7, 2, 5, 5));
    assert_eq!(counts.pins, 1);
}

#[tokio::test]
async fn requests_without_a_valid_pin_or_with_another_method_get_the_vendors_errors() {
    let (simulator, client) = (start(Settings::default()).await, client());
    for (path, status) in [
        ("/", 404),
        ("/2fa/1/pin/a/b/status", 404),
        ("/2fa/1/pin/status", 404),
        ("/2fa/1/pin/a%20b/status", 400),
        ("/2fa/1/pin/%ff/status", 400),
        ("/2fa/1/pin//status", 400),
        ("/2fa/1/pin/sim-deliverd-1/status", 400),
        ("/2fa/1/pin/9C%38%31/status?why=not", 200),
    ] {
        let url = format!("{}{path}", simulator.base_url());
        let response = client.get(url).header(AUTHORIZATION, "App demo-key").send().await.unwrap();
        assert_eq!(response.status(), status, "{path}");
        let body = json_of(response).await;
        let text = &body["requestError"]["serviceException"]["text"];
        assert!(status == 200 || text.is_string(), "{path}: {body}");
    }
    let post = client.post(url(&simulator, PIN)).header(AUTHORIZATION, "App demo-key");
    assert_eq!(post.send().await.unwrap().status(), StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn the_path_is_settable_and_must_have_a_place_for_the_pin() {
    let settings = Settings { path: Some("/v2/{pinId}".into()), ..Settings::default() };
    let simulator = start(settings).await;
    let url = format!("{}/v2/{PIN}", simulator.base_url());
    let response = client().get(url).header(AUTHORIZATION, "App demo-key").send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);

    for path in ["", "/pin", "{pinId}", "/{pinId}/{pinId}"] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let settings = Settings { path: Some(path.into()), ..Settings::default() };
        assert!(Simulator::start(settings, listener).is_err(), "{path}");
    }
}

#[tokio::test]
async fn every_answer_is_an_array_of_documented_deliveries() {
    let life = LifeSettings { median: Duration::from_micros(1), ..LifeSettings::default() };
    let (simulator, client) = (start(Settings { life, ..Settings::default() }).await, client());
    let mut deliveries = 0;
    for n in 0..500 {
        let response = ask(&client, &simulator, &format!("{n:032x}")).await.unwrap();
        assert_eq!(response.headers()["content-type"], "application/json");
        for delivery in json_of(response).await.as_array().unwrap() {
            let status = Status::from_wire(delivery["status"].as_str().unwrap());
            assert_eq!(delivery["description"].as_str(), status.description());
            let is_final = &delivery["finalStatus"];
            let expected = status.is_final_by_table();
            assert!(
                *is_final == json!(expected)
                    || *is_final == json!(expected.to_string())
                    || is_final.is_null()
            );
            deliveries += 1;
        }
    }
    assert!(deliveries > 450, "{deliveries}");
    assert_eq!(simulator.stop().await.pins, 500);
}

#[tokio::test]
async fn two_simulators_with_one_seed_have_the_outcomes_that_the_library_predicts() {
    let life = LifeSettings { seed: 5, median: Duration::from_micros(1), ..LifeSettings::default() };
    let settings = Settings { life: life.clone(), ..Settings::default() };
    let (one, other) = (start(settings.clone()).await, start(settings).await);
    let client = client();
    let pins: Vec<_> = (0..200).map(|n| format!("{n:032x}")).collect();
    for pin in &pins {
        ask(&client, &one, pin).await.unwrap();
        ask(&client, &other, pin).await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    for pin in &pins {
        let told = json_of(ask(&client, &one, pin).await.unwrap()).await;
        assert_eq!(told, json_of(ask(&client, &other, pin).await.unwrap()).await);
        let foretold: Vec<_> =
            Life::of(&life, pin).at(Duration::MAX).map(|told| told.status.status()).collect();
        let statuses = told.as_array().unwrap().iter().map(|delivery| delivery["status"].as_str().unwrap());
        assert_eq!(statuses.map(Status::from_wire).collect::<Vec<_>>(), foretold);
    }
}

#[tokio::test]
async fn the_age_of_a_pin_counts_from_its_first_request() {
    let (simulator, client) = (start(Settings::default()).await, client());
    let status = async |pin: &str| {
        json_of(ask(&client, &simulator, pin).await.unwrap()).await[0]["status"].as_str().unwrap().to_owned()
    };
    assert_eq!(status("sim-300ms-a").await, "MESSAGE_WAITING_DELIVERY");
    tokio::time::sleep(Duration::from_millis(350)).await;
    assert_eq!(status("sim-300ms-a").await, "MESSAGE_DELIVERED");
    assert_eq!(status("sim-300ms-b").await, "MESSAGE_WAITING_DELIVERY");
}

#[tokio::test]
async fn a_pin_can_be_unknown_at_first() {
    let settings = Settings { known_after: Duration::from_millis(300), ..Settings::default() };
    let (simulator, client) = (start(settings).await, client());
    let early = ask(&client, &simulator, PIN).await.unwrap();
    assert_eq!(early.status(), StatusCode::NOT_FOUND);
    let error = &json_of(early).await["requestError"]["serviceException"]["messageId"];
    assert_eq!(error, "RESOURCE_NOT_FOUND");
    tokio::time::sleep(Duration::from_millis(350)).await;
    assert_eq!(ask(&client, &simulator, PIN).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn scripted_pins_behave_as_their_names_say() {
    let (simulator, client) = (start(Settings::default()).await, client());
    for (pin, status, is_final) in [
        ("sim-delivered-1", SmsStatus::Delivered, true),
        ("sim-failed-1", SmsStatus::NotDelivered, true),
        ("sim-waiting-1", SmsStatus::WaitingDelivery, false),
        ("sim-MESSAGE_NOT_SENT-1", SmsStatus::NotSent, false),
    ] {
        let told = json_of(ask(&client, &simulator, pin).await.unwrap()).await;
        assert_eq!(told[0]["status"], Status::Sms(status).as_str());
        assert_eq!(told[0]["finalStatus"], is_final);
    }
    let call = json_of(ask(&client, &simulator, "sim-call-1").await.unwrap()).await;
    assert_eq!(call[0]["status"], Known::Call(CallStatus::Processed).status().as_str());
    assert_eq!(json_of(ask(&client, &simulator, "sim-none-1").await.unwrap()).await, json!([]));
    let unknown = json_of(ask(&client, &simulator, "sim-unknown-1").await.unwrap()).await;
    assert_eq!(unknown[0]["status"], "MESSAGE_READ");
    for status in [400, 403, 404, 408, 500, 503, 599] {
        let response = ask(&client, &simulator, &format!("sim-{status}-1")).await.unwrap();
        assert_eq!(response.status(), status);
        assert!(json_of(response).await["requestError"]["serviceException"]["text"].is_string());
    }
}

#[tokio::test]
async fn a_429_has_a_retry_after_and_the_newer_error_body() {
    let (simulator, client) = (start(Settings::default()).await, client());
    let (mut seconds, mut dates) = (0, 0);
    for _ in 0..30 {
        let response = ask(&client, &simulator, "sim-429-1").await.unwrap();
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        let retry_after = response.headers()[RETRY_AFTER].to_str().unwrap().to_owned();
        if retry_after.parse::<u8>().is_ok() {
            seconds += 1
        } else {
            dates += 1
        }
        assert_eq!(json_of(response).await["errorCode"], "E429");
    }
    assert!(seconds > 0 && dates > 0);
    assert_eq!(simulator.counts().throttled, 30);
}

#[tokio::test]
async fn requests_above_the_rate_limit_are_throttled_until_the_next_second() {
    let settings = Settings { rate_limit: 10.try_into().ok(), ..Settings::default() };
    let (simulator, client) = (start(settings).await, client());
    let started = std::time::Instant::now();
    for _ in 0..300 {
        ask(&client, &simulator, PIN).await.unwrap();
    }
    // The simulator's seconds are not those of the test: one more may have begun at either end.
    let most = 10 * (started.elapsed().as_secs() + 2);
    let counts = simulator.counts();
    assert!((10..=most).contains(&counts.ok) && counts.ok + counts.throttled == 300, "{counts}");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(ask(&client, &simulator, PIN).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn faults_of_the_body_make_malformed_html_empty_huge_or_slow_answers() {
    let (simulator, client) = (start(faulty(&[])).await, client());
    for _ in 0..20 {
        let malformed = ask(&client, &simulator, "sim-malformed-1").await.unwrap();
        assert_eq!(malformed.status(), StatusCode::OK);
        let body = malformed.bytes().await.unwrap();
        let well_formed =
            serde_json::from_slice::<Value>(&body).is_ok_and(|value| value[0]["status"].is_string());
        assert!(!well_formed, "{body:?}");
    }
    let html = ask(&client, &simulator, "sim-html-1").await.unwrap();
    assert_eq!(html.headers()["content-type"], "text/html");
    let empty = ask(&client, &simulator, "sim-empty-1").await.unwrap();
    assert_eq!((empty.status(), empty.bytes().await.unwrap().len()), (StatusCode::OK, 0));
    let huge = ask(&client, &simulator, "sim-huge-1").await.unwrap().bytes().await.unwrap();
    assert!(huge.len() > 8 * 1024 * 1024);
    let started = std::time::Instant::now();
    let slow = json_of(ask(&client, &simulator, "sim-slow-1").await.unwrap()).await;
    assert_eq!(slow[0]["status"], "MESSAGE_DELIVERED");
    assert!(started.elapsed() > Duration::from_millis(150));
    assert_eq!(simulator.counts().spoiled, 24);
}

#[tokio::test]
async fn connection_faults_break_the_connection_at_the_named_place() {
    let (simulator, client) = (start(faulty(&[])).await, client());
    let cut = ask(&client, &simulator, "sim-cut-1").await.unwrap();
    assert_eq!(cut.status(), StatusCode::OK);
    assert!(cut.content_length().unwrap() > 80);
    assert_eq!(kind(&cut.bytes().await.unwrap_err()), "body");
    // Not even a head.
    assert_eq!(kind(&ask(&client, &simulator, "sim-close-1").await.unwrap_err()), "request");
    let stall = ask(&client, &simulator, "sim-stall-1");
    assert!(tokio::time::timeout(Duration::from_millis(200), stall).await.is_err());
    // And the next one is answered.
    assert_eq!(ask(&client, &simulator, PIN).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn the_same_seed_makes_the_same_faults_in_every_run() {
    let run = async |seed| {
        let mut settings =
            faulty(&["500=0.1", "429=0.1", "401=0.1", "html=0.1", "cut=0.1", "close=0.1", "empty=0.1"]);
        settings.life.seed = seed;
        let (simulator, client) = (start(settings).await, client());
        let mut met = Vec::new();
        for _ in 0..60 {
            met.push(match ask(&client, &simulator, PIN).await {
                Err(error) => kind(&error).to_owned(),
                Ok(response) => {
                    let status = response.status();
                    let length = response.bytes().await.map_err(|error| kind(&error)).map(|body| body.len());
                    format!("{status} {length:?}")
                }
            });
        }
        met
    };
    let one = run(1).await;
    assert_eq!(one, run(1).await);
    assert_ne!(one, run(2).await);
    for status in ["500", "429", "401", "200"] {
        assert!(one.iter().any(|met| met.starts_with(status)), "{status} in {one:?}");
    }
}

#[tokio::test]
async fn answers_are_delayed_by_latency_and_jitter() {
    let latency = Duration::from_millis(50);
    let settings = Settings { latency, jitter: Duration::from_millis(20), ..Settings::default() };
    let (simulator, client) = (start(settings).await, client());
    let started = std::time::Instant::now();
    ask(&client, &simulator, PIN).await.unwrap();
    assert!(started.elapsed() >= latency);
}

#[tokio::test]
async fn the_simulator_supports_http_2_with_prior_knowledge() {
    let simulator = start(Settings::default()).await;
    let _ = client();
    let client = Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
    let response = ask(&client, &simulator, "sim-delivered-1").await.unwrap();
    assert_eq!((response.version(), response.status()), (reqwest::Version::HTTP_2, StatusCode::OK));
    let cut = ask(&client, &simulator, "sim-cut-1").await.unwrap();
    assert!(cut.bytes().await.is_err());
    let close = match ask(&client, &simulator, "sim-close-1").await {
        Ok(response) => response.bytes().await.is_err(),
        Err(_) => true,
    };
    assert!(close);
    assert_eq!(simulator.stop().await.requests, 3);
}

#[tokio::test]
async fn the_simulator_stops_within_its_grace_despite_running_requests() {
    let (simulator, client) = (start(faulty(&[])).await, client());
    let addr = simulator.addr();
    let stalled = tokio::spawn({
        let request = client.get(url(&simulator, "sim-stall-1")).header(AUTHORIZATION, "App demo-key");
        request.send()
    });
    while simulator.counts().requests == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let counts = tokio::time::timeout(Duration::from_secs(30), simulator.stop()).await.unwrap();
    assert_eq!((counts.requests, counts.spoiled), (1, 1));
    assert!(stalled.await.unwrap().is_err());
    assert!(tokio::net::TcpStream::connect(addr).await.is_err());
}
