//! Other APIs than the default one: each preset against the simulator, an API that has changed, and rules for every
//! description.

use pinwatch::config::{Api, Config, PRESETS};
use pinwatch::poll::{Client, Connection, Meaning};
use pinwatch::simulate::{Preset, Settings};
use serde_json::json;
use wiremock::matchers::{any, header, method, path, query_param};
use wiremock::{Mock as Answers, MockServer, ResponseTemplate};

use crate::support::{Daemon, Mock, Place, Simulated, code, program, run_to_end, until};

/// A place whose daemon polls at this URL by this preset, with these lines more.
fn place(preset: &str, base_url: &str, more: &str) -> Place {
    let credentials = if preset.starts_with("infobip") {
        "key = \"demo-key\""
    } else {
        "username = \"demo\"\npassword = \"demo-key\""
    };
    Place::of(&format!(
        "[api]\npreset = \"{preset}\"\nbase_url = \"{base_url}\"\n{credentials}\n{more}\n\
         [schedule]\ninitial_interval = \"20ms\"\nmax_interval = \"200ms\"\n\
         [intake]\nsocket = \"FOLDER/pinwatch.sock\"\n[store]\nurl = \"sqlite:FOLDER/pinwatch.db\"\n\
         [[sink]]\ntype = \"file\"\npath = \"FOLDER/outcomes.jsonl\"\nfrom = \"oldest\"\n"
    ))
}

fn simulated(preset: &str) -> Simulated {
    let preset = <Preset as clap::ValueEnum>::from_str(preset, false).unwrap();
    Simulated::with(Settings { preset, ..Settings::default() })
}

#[test]
fn each_preset_polls_every_simulated_pin_until_it_ends() {
    for preset in &PRESETS {
        let name = preset.name;
        let api = simulated(name);
        let daemon = place(name, &api.base_url(), "").start();
        let mut client = daemon.client();
        // The statuses that the vendor has for what the simulator lets happen.
        let (delivered, failed, says_delivered) = match name {
            "infobip-2fa-pin" => ("MESSAGE_DELIVERED", "MESSAGE_NOT_DELIVERED", true),
            "infobip-sms-logs" => ("DELIVERED_TO_HANDSET", "UNDELIVERABLE_NOT_DELIVERED", true),
            "twilio-message" => ("delivered", "undelivered", true),
            "vonage-verify" => ("SUCCESS", "EXPIRED", false),
            "sinch-verification" => ("SUCCESSFUL", "FAIL", false),
            other => panic!("{other}"),
        };
        for pin in ["sim-delivered-1", "sim-failed-1", "sim-250ms-1", "sim-waiting-1", "sim-404-1"] {
            client.submit(pin);
        }
        for (pin, status, means) in [
            ("sim-delivered-1", delivered, json!(true)),
            ("sim-failed-1", failed, json!(false)),
            ("sim-250ms-1", delivered, json!(true)),
        ] {
            let record = client.outcome(pin);
            let means = if says_delivered { means } else { json!(null) };
            assert_eq!(record["outcome"], "final", "{name}: {record}");
            assert_eq!(
                (&record["status"], &record["delivered"]),
                (&json!(status), &means),
                "{name}: {record}"
            );
            assert_eq!(record["deliveries"].as_array().unwrap().len(), 1, "{name}: {record}");
        }
        daemon.all_records(3);
        assert_eq!(client.stats()["polls"]["unreadable"], 0, "{name}");
        assert_eq!(api.counts().bad_keys, 0, "{name}");
    }
}

#[test]
fn an_api_with_changed_answers_ends_no_pin_until_the_configuration_matches() {
    let api = Mock::start();
    api.answers_all(
        ResponseTemplate::new(200).set_body_json(json!({"request_id": "P1", "state": "SUCCESS"})),
    );
    let place = place("vonage-verify", &api.base_url(), "");
    let daemon = place.start();
    daemon.client().submit("P1");
    until("answers are counted as unreadable", || {
        (daemon.client().stats()["polls"]["unreadable"].as_u64().unwrap() >= 3).then_some(())
    });
    let said = daemon.log();
    assert!(said.contains("nothing is at api.answer.status = ") && said.contains("/status"), "{said}");
    assert!(daemon.records().is_empty());

    place.configure("[api.answer]\nstatus = \"/state\"\n");
    daemon.signal(rustix::process::Signal::HUP);
    let record = daemon.client().outcome("P1");
    assert_eq!((&record["outcome"], &record["status"]), (&json!("final"), &json!("SUCCESS")), "{record}");
}

#[test]
fn no_id_can_change_the_url() {
    let api = Mock::start();
    api.answers_all(ResponseTemplate::new(404));
    let daemon: Daemon = place("vonage-verify", &api.base_url(), "").start();
    let mut client = daemon.client();
    for id in ["a/b", "a?b", "a#b", "a&request_id=b", "a%2Fb", "..", ".", "a b", "a\u{1}b", "é"] {
        let answer = client.op(&json!({"op": "submit", "pinId": id}));
        assert_eq!(code(&answer), "invalid_pin_id", "{id}: {answer}");
    }
    assert_eq!(api.requests(), 0);
}

fn api(preset: &str, base_url: &str, sets: &[&str]) -> Api {
    let (preset, base_url) = (format!("api.preset={preset}"), format!("api.base_url={base_url}"));
    let all = [&[&*preset, &*base_url], sets].concat();
    Config::of_sets(&all).unwrap().api
}

async fn poll(api: &Api) -> Meaning {
    Client::new(api).unwrap().poll(&"SM01".parse().unwrap(), Connection::Kept).await
}

const USER: [&str; 2] = ["api.username=AC01", "api.password=hunter2"];

#[tokio::test]
async fn the_id_and_the_credentials_are_sent_as_the_preset_says() {
    let server = MockServer::start().await;
    Answers::given(method("GET"))
        .and(path("/2010-04-01/Accounts/AC01/Messages/SM01.json"))
        .and(header("authorization", "Basic QUMwMTpodW50ZXIy"))
        .respond_with(ResponseTemplate::new(200).set_body_json(json!({"sid": "SM01", "status": "delivered"})))
        .expect(1)
        .mount(&server)
        .await;
    Answers::given(method("GET"))
        .and(path("/sms/3/logs"))
        .and(query_param("messageId", "SM01"))
        .and(header("authorization", "Bearer hunter2"))
        .respond_with(ResponseTemplate::new(200).set_body_json(json!({"results": []})))
        .expect(1)
        .mount(&server)
        .await;
    let Meaning::Deliveries(deliveries) = poll(&api("twilio-message", &server.uri(), &USER)).await else {
        panic!()
    };
    assert_eq!((deliveries[0].status.as_str(), deliveries[0].final_status), ("delivered", true));
    let bearer = ["api.key=hunter2", "api.auth=Bearer {key}"];
    assert_eq!(poll(&api("infobip-sms-logs", &server.uri(), &bearer)).await, Meaning::Deliveries(vec![]));
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_an_echo_of_the_credentials_is_cleaned() {
    let elsewhere = MockServer::start().await;
    Answers::given(any()).respond_with(ResponseTemplate::new(200)).expect(0).mount(&elsewhere).await;
    let answers = [
        ResponseTemplate::new(302).insert_header("location", format!("{}/?token=hunter2", elsewhere.uri())),
        ResponseTemplate::new(200).set_body_json(json!({"sid": "SM01", "status": "hunter2"})),
        ResponseTemplate::new(200)
            .set_body_json(json!({"sid": "SM01", "status": "sent", "error_message": "for QUMwMTpodW50ZXIy"})),
        ResponseTemplate::new(200).set_body_json(json!({"sid": "", "status": "hunter2"})),
        ResponseTemplate::new(400).set_body_json(json!({"code": 20001, "message": "bad hunter2"})),
        ResponseTemplate::new(500).set_body_json(json!({"message": "bad hunter2"})),
    ];
    for answer in answers {
        let server = MockServer::start().await;
        Answers::given(any()).respond_with(answer).expect(1).mount(&server).await;
        let meaning = poll(&api("twilio-message", &server.uri(), &USER)).await;
        let said = format!("{meaning:?}");
        assert!(!said.contains("hunter2") && !said.contains("QUMwMTpodW50ZXIy"), "{said}");
    }
}

#[tokio::test]
async fn the_message_of_a_refusal_is_in_the_outcome() {
    for (body, expected) in [
        (
            json!({"code": 20404, "message": "The requested resource was not found"}),
            "400 Bad Request: The requested resource was not found",
        ),
        (json!({"error_text": "Invalid value"}), "400 Bad Request: Invalid value"),
        (json!({"title": "Bad", "detail": "It is worse"}), "400 Bad Request: It is worse"),
    ] {
        let server = MockServer::start().await;
        Answers::given(any())
            .respond_with(ResponseTemplate::new(400).set_body_json(body))
            .mount(&server)
            .await;
        let meaning = poll(&api("twilio-message", &server.uri(), &USER)).await;
        assert_eq!(meaning, Meaning::Rejected(expected.to_owned()));
    }
}

#[test]
fn doctor_shows_field_by_field_how_an_answer_was_read() {
    let doctor = |place: &Place, arguments: &[&str]| {
        let mut command = program();
        command.arg("doctor").arg("--config").arg(place.config()).args(arguments);
        run_to_end(command).stdout
    };
    let api = simulated("infobip-sms-logs");
    let here = place("infobip-sms-logs", &api.base_url(), "");
    let said = doctor(&here, &["--pin", "sim-delivered-1"]);
    for line in [
        r#"{"check":"answer","ok":true,"what":"api.answer.deliveries = \"/results\": 1 delivery"}"#,
        r#"{"check":"answer","ok":true,"what":"api.answer.id = \"/messageId\": \"sim-delivered-1\""}"#,
        r#"{"check":"answer","ok":true,"what":"DELIVERED_TO_HANDSET: final and delivered"}"#,
    ] {
        assert!(said.lines().any(|said| said == line), "{line} in {said}");
    }
    // The default preset's own reader tells less, and only if it is asked.
    let of_default = simulated("infobip-2fa-pin");
    let default = place("infobip-2fa-pin", &of_default.base_url(), "");
    assert!(doctor(&default, &["--pin", "sim-waiting-1"]).contains("MESSAGE_WAITING_DELIVERY: not final"));
    assert!(!doctor(&default, &[]).contains("\"answer\""));

    // The vendor changes its answers.
    let changed = Mock::start();
    changed.answers_all(
        ResponseTemplate::new(200).set_body_json(json!({"results": [{"messageId": "P1", "status": "DONE"}]})),
    );
    let place = place("infobip-sms-logs", &changed.base_url(), "");
    let said = doctor(&place, &["--pin", "P1"]);
    assert!(said.contains(r#""ok":false,"what":"api.answer.status = \"/status/name\": nothing""#), "{said}");
    assert!(!said.contains("demo-key"), "{said}");
    // Of a PIN that nobody has, nothing need be readable.
    let said = doctor(&place, &[]);
    assert!(said.contains("doctor --pin ID") && said.contains("\"warning\":true"), "{said}");
    assert!(!said.lines().any(|line| line.contains("\"answer\",\"ok\":false")), "{said}");
}

#[test]
fn the_presets_command_lists_all_presets_and_prints_one() {
    let run = |arguments: &[&str]| {
        let mut command = program();
        command.arg("presets").args(arguments);
        let ended = run_to_end(command);
        assert_eq!(ended.code, Some(0), "{arguments:?}: {}", ended.stderr);
        ended.stdout
    };
    let listed = run(&[]);
    for preset in &PRESETS {
        assert!(listed.contains(&format!("\"name\":\"{}\"", preset.name)), "{listed}");
        assert_eq!(run(&[preset.name]), preset.toml);
    }
    assert_eq!(listed.lines().count(), PRESETS.len());
}

#[test]
fn the_demo_runs_with_another_preset_without_an_account() {
    let mut command = program();
    command.args(["demo", "--preset", "vonage-verify", "--pins", "3"]);
    let ended = run_to_end(command);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stdout.contains("SUCCESS") && !ended.stdout.contains("MESSAGE_"), "{}", ended.stdout);
}
