//! Two stand-ins for the API: the simulator, whose PIN IDs say how they end, and a mock that answers
//! as a test configures it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use pinwatch::simulate::{Counts, Settings, Simulator};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use wiremock::matchers::any;
use wiremock::{MockServer, Request, ResponseTemplate};

/// A simulator that runs beside a test that is not asynchronous.
pub struct Simulated {
    simulator: Simulator,
    _runtime: Runtime,
}

impl Simulated {
    /// One that answers at once.
    pub fn start() -> Self {
        Self::with(Settings::default())
    }

    pub fn with(settings: Settings) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let simulator = runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            Simulator::start(settings, listener).unwrap()
        });
        Self { simulator, _runtime: runtime }
    }

    pub fn base_url(&self) -> String {
        self.simulator.base_url()
    }

    pub fn counts(&self) -> Counts {
        self.simulator.counts()
    }
}

/// Answers as configured, and remembers the requests.
pub struct Mock {
    server: MockServer,
    told: Arc<Mutex<Told>>,
    _runtime: Runtime,
}

/// One answer follows the other without a moment between, in which there would be none.
#[derive(Default)]
struct Told {
    /// By path.
    answers: HashMap<String, ResponseTemplate>,
    others: Option<ResponseTemplate>,
    /// Paths that were asked for.
    asked: Vec<String>,
}

impl Mock {
    pub fn start() -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let told = Arc::new(Mutex::new(Told::default()));
        let answering = told.clone();
        let answer = move |request: &Request| {
            let mut told = answering.lock().unwrap();
            let path = request.url.path();
            told.asked.push(path.to_owned());
            let answer = told.answers.get(path).or(told.others.as_ref());
            answer.cloned().unwrap_or_else(|| ResponseTemplate::new(404))
        };
        let server = runtime.block_on(async {
            let server = MockServer::start().await;
            wiremock::Mock::given(any()).respond_with(answer).mount(&server).await;
            server
        });
        Self { server, told, _runtime: runtime }
    }

    pub fn base_url(&self) -> String {
        self.server.uri()
    }

    /// Sets the answer for this PIN.
    pub fn answers(&self, pin: &str, response: ResponseTemplate) {
        self.told.lock().unwrap().answers.insert(path(pin), response);
    }

    /// Sets the only answer for all PINs.
    pub fn answers_all(&self, response: ResponseTemplate) {
        *self.told.lock().unwrap() = Told { others: Some(response), ..Told::default() };
    }

    /// Requests since the start, or since [`Mock::answers_all`].
    pub fn requests(&self) -> usize {
        self.told.lock().unwrap().asked.len()
    }

    /// Of those, requests for this PIN.
    pub fn requests_for(&self, pin: &str) -> usize {
        self.told.lock().unwrap().asked.iter().filter(|asked| **asked == path(pin)).count()
    }
}

fn path(pin: &str) -> String {
    format!("/2fa/1/pin/{pin}/status")
}

/// A delivery as the API tells it.
pub fn delivery(status: &str, is_final: bool) -> serde_json::Value {
    serde_json::json!({"status": status, "description": format!("about {status}"), "finalStatus": is_final})
}

/// The answer for a PIN whose only delivery arrived.
pub fn delivered() -> ResponseTemplate {
    ResponseTemplate::new(200).set_body_json([delivery("MESSAGE_DELIVERED", true)])
}
