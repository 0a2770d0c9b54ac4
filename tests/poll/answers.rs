//! Complete answers over a socket, and their meaning.

use std::io::Write;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use flate2::Compression;
use flate2::write::GzEncoder;
use pinwatch::poll::{Connection, MAX_BODY};
use wiremock::matchers::{any, header, method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::*;

/// `GOOD`, compressed with gzip.
const GOOD_GZIP: &str = "H4sIAAAAAAACA4uuViouSSwpLVayUvJ1DQ52dHeNd3H18QxzDXJ1UdJRSkktTi7KLCjJzM8DqUgtLk5MT1UoTs0rUUjMS1FISc3JLEstSk0BKk3LzEvMCYYaVlJUmlobCwAaJoKbXgAAAA==";

/// An array with a MiB of white space, compressed with gzip.
const BOMB_GZIP: &str = "H4sIAAAAAAACA+3BQREAAAwCoCrr5a1/DUP4BXIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAKMvior2lAIAEAA=";

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

async fn answering(answer: ResponseTemplate) -> MockServer {
    let server = MockServer::start().await;
    Mock::given(any()).respond_with(answer).mount(&server).await;
    server
}

#[tokio::test]
async fn a_poll_is_one_get_with_the_app_key_and_the_usual_headers() {
    let server = MockServer::start().await;
    Mock::given(method("GET"))
        .and(path("/2fa/1/pin/9C817C6F8AF3D48F9FE553282AFA2B67/status"))
        .and(header("authorization", "App hunter2"))
        .and(header("accept", "application/json"))
        .and(header("accept-encoding", "gzip"))
        .and(header("user-agent", concat!("pinwatch/", env!("CARGO_PKG_VERSION"))))
        .respond_with(ResponseTemplate::new(200).set_body_string(GOOD))
        .expect(1)
        .mount(&server)
        .await;
    assert_delivered(&poll(&api(&server.uri())).await);
}

#[tokio::test]
async fn a_user_name_and_password_are_sent_as_basic_authentication() {
    let server = MockServer::start().await;
    Mock::given(header("authorization", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="))
        .respond_with(ResponseTemplate::new(200).set_body_string(GOOD))
        .mount(&server)
        .await;
    let credentials = Credentials::Basic { username: "Aladdin".into(), password: "open sesame".into() };
    assert_delivered(&poll(&Api { credentials, ..api(&server.uri()) }).await);
}

#[tokio::test]
async fn the_path_of_the_base_url_is_kept_and_every_pin_id_is_one_segment() {
    let server = MockServer::start().await;
    for id in ["a.b_c-1", "...", "-", &"x".repeat(128)] {
        Mock::given(path(format!("/gateway/v2/2fa/1/pin/{id}/status")))
            .respond_with(ResponseTemplate::new(200).set_body_string(GOOD))
            .expect(1)
            .mount(&server)
            .await;
        let client = Client::new(&api(&format!("{}/gateway/v2/", server.uri()))).unwrap();
        assert_delivered(&client.poll(&id.parse().unwrap(), Connection::Kept).await);
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed_so_that_the_key_reaches_no_other_server() {
    let elsewhere = MockServer::start().await;
    Mock::given(any()).respond_with(ResponseTemplate::new(200)).expect(0).mount(&elsewhere).await;
    for code in [301, 302, 303, 307, 308] {
        let location = format!("{}/?token=hunter2", elsewhere.uri());
        let server = answering(ResponseTemplate::new(code).insert_header("location", location)).await;
        let meaning = poll(&api(&server.uri())).await;
        assert_unavailable(&meaning, &format!("redirects are not followed (to {})", elsewhere.uri()));
        assert_eq!(server.received_requests().await.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn every_kind_of_answer_gets_its_meaning() {
    let body = r#"{"requestError":{"serviceException":{"messageId":"SOME_ID","text":"Some text"}}}"#;
    let said = |name: &str| format!("{name}: SOME_ID: Some text");
    for (code, expected) in [
        (204, Meaning::Unreadable("204 No Content where 200 was due".into())),
        (400, Meaning::Rejected(said("400 Bad Request"))),
        (401, Meaning::Unauthorized(401)),
        (403, Meaning::Unauthorized(403)),
        (404, Meaning::NotFound),
        (408, Meaning::Unavailable(said("408 Request Timeout"))),
        (405, Meaning::Rejected(said("405 Method Not Allowed"))),
        (410, Meaning::Rejected(said("410 Gone"))),
        (421, Meaning::Unavailable(said("421 Misdirected Request"))),
        (426, Meaning::Unavailable(said("426 Upgrade Required"))),
        (431, Meaning::Unavailable(said("431 Request Header Fields Too Large"))),
        (425, Meaning::Unavailable(said("425 Too Early"))),
        (429, Meaning::Throttled(Duration::from_secs(7))),
        (500, Meaning::Unavailable(said("500 Internal Server Error"))),
        (503, Meaning::Unavailable(said("503 Service Unavailable"))),
    ] {
        let answer = ResponseTemplate::new(code).insert_header("retry-after", "7");
        let answer = if code == 204 { answer } else { answer.set_body_string(body) };
        assert_eq!(poll(&api(&answering(answer).await.uri())).await, expected);
    }
}

#[tokio::test]
async fn an_html_page_with_a_200_is_unreadable() {
    let server = answering(ResponseTemplate::new(200).set_body_string("<html>Log in</html>")).await;
    assert_unreadable(&poll(&api(&server.uri())).await, "expected value");
}

#[tokio::test]
async fn a_compressed_answer_is_read() {
    let body = BASE64.decode(GOOD_GZIP).unwrap();
    let gzip =
        |body| ResponseTemplate::new(200).insert_header("content-encoding", "gzip").set_body_bytes(body);
    assert_delivered(&poll(&api(&answering(gzip(body.clone())).await.uri())).await);

    let half = body[..body.len() / 2].to_vec();
    assert_unreadable(&poll(&api(&answering(gzip(half)).await.uri())).await, "cut off");
    let broken = b"not gzip at all".to_vec();
    assert_unreadable(&poll(&api(&answering(gzip(broken)).await.uri())).await, "cut off");
}

#[tokio::test]
async fn every_form_of_a_gzip_answer_is_read() {
    let whole = BASE64.decode(GOOD_GZIP).unwrap();
    let with_mark = ["\u{feff}", GOOD].concat().into_bytes();
    for (coding, body) in [
        ("GZIP", whole.clone()),
        ("x-gzip", whole.clone()),
        // A second member, of nothing: BGZF ends so, and so do servers that flush each chunk into a member of its own.
        ("gzip", [whole.clone(), gzip(b"")].concat()),
        ("gzip", [gzip(&GOOD.as_bytes()[..9]), gzip(&GOOD.as_bytes()[9..])].concat()),
        ("gzip", gzip(&with_mark)),
        ("identity", with_mark),
    ] {
        let answer =
            ResponseTemplate::new(200).insert_header("content-encoding", coding).set_body_bytes(body);
        assert_delivered(&poll(&api(&answering(answer).await.uri())).await);
    }
}

#[tokio::test]
async fn an_answer_with_an_unrequested_content_coding_is_unreadable_and_the_coding_is_named() {
    for coding in ["deflate", "br", "zstd"] {
        let answer =
            ResponseTemplate::new(200).insert_header("content-encoding", coding).set_body_string(GOOD);
        assert_unreadable(
            &poll(&api(&answering(answer).await.uri())).await,
            &format!("encoded as {coding:?}"),
        );
    }
}

#[tokio::test]
async fn a_200_that_only_says_error_is_not_understood() {
    for body in [r#"{"status":"error"}"#, "\u{feff}{\"status\":\"error\",\"description\":\"try later\"}"] {
        let server = answering(ResponseTemplate::new(200).set_body_string(body)).await;
        assert_unreadable(&poll(&api(&server.uri())).await, "is no delivery");
    }
}

#[tokio::test]
async fn no_answer_makes_the_key_appear_in_a_message() {
    let escaped: String = "hunter2".chars().map(|c| format!("\\u{:04x}", u32::from(c))).collect();
    let split = r"hun\u0074er2";
    let twice = split.replace('\\', r"\\");
    // `App hunter2` and `hunter2`, as Basic authentication would write them.
    let encoded = BASE64.encode("hunter2");
    for said in ["hunter2", &escaped, split, &twice, "hunter%32", "&#104;unter2", &encoded] {
        for body in [
            format!(
                r#"[{{"status":"MESSAGE_DELIVERED","description":"for App {said}","finalStatus":true}}]"#
            ),
            format!(r#"[{{"status":"App {said}","finalStatus":true}}]"#),
            format!(r#"[{{"status":"MESSAGE_DELIVERED","finalStatus":"{said}"}}]"#),
            format!(
                r#"{{"requestError":{{"serviceException":{{"messageId":"{said}","text":"App {said}"}}}}}}"#
            ),
            format!(r#"{{"errorCode":"E","description":"{}{said}"}}"#, "x".repeat(480)),
            format!(r#"{{"errorCode":1,"violations":[{{"property":"App","violation":"{said}"}}]}}"#),
            format!("Authorization: App {said}"),
        ] {
            for code in [200, 302, 400, 404, 408] {
                let answer = ResponseTemplate::new(code)
                    .insert_header("location", "https://hunter2.example/")
                    .set_body_string(body.as_str());
                let meaning = format!("{:?}", poll(&api(&answering(answer).await.uri())).await);
                let reading = meaning.to_lowercase();
                for secret in [
                    "hunt",
                    &escaped,
                    split,
                    r"hun\\u0074",
                    "hunter%32",
                    "&#104;unt",
                    &encoded.to_lowercase(),
                ] {
                    assert!(!reading.contains(secret), "{code} {body}: {meaning}");
                }
            }
        }
    }
}

#[tokio::test]
async fn no_answer_makes_the_password_or_its_basic_encoding_appear_in_a_message() {
    let credentials = Credentials::Basic { username: "Aladdin".into(), password: "open sesame".into() };
    for said in [
        "QWxhZGRpbjpvcGVuIHNlc2FtZQ==",
        r"QWxhZGRpbjpvcGVuIHNlc2FtZQ\u003d\u003d",
        "Aladdin:open\\u0020sesame",
    ] {
        let body = format!(r#"{{"errorCode":"E","description":"Basic {said}"}}"#);
        let server = answering(ResponseTemplate::new(400).set_body_string(body)).await;
        let meaning = poll(&Api { credentials: credentials.clone(), ..api(&server.uri()) }).await;
        let Meaning::Rejected(text) = &meaning else { panic!("{meaning:?}") };
        assert!(!text.contains("QWxhZGRpb") && !text.contains("sesame") && text.contains("***"), "{text}");
    }
}

#[tokio::test]
async fn a_body_over_64_kib_is_unreadable_compressed_or_not() {
    let padded = |n: usize| ResponseTemplate::new(200).set_body_string(format!("[]{}", " ".repeat(n - 2)));
    let largest = answering(padded(MAX_BODY)).await;
    assert_eq!(poll(&api(&largest.uri())).await, Meaning::Deliveries(vec![]));
    let too_large = answering(padded(MAX_BODY + 1)).await;
    assert_unreadable(&poll(&api(&too_large.uri())).await, "over 64 KiB");

    let bomb = ResponseTemplate::new(200)
        .insert_header("content-encoding", "gzip")
        .set_body_bytes(BASE64.decode(BOMB_GZIP).unwrap());
    assert_unreadable(&poll(&api(&answering(bomb).await.uri())).await, "over 64 KiB");
}
