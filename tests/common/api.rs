//! Two stand-ins for the API: the simulator, whose PIN IDs say what happens to them, and a mock that answers
//! what it is told to.

use pinwatch::simulate::{Counts, Settings, Simulator};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use wiremock::matchers::{method, path};
use wiremock::{MockServer, ResponseTemplate};

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

/// Answers what it is told to, and remembers what it was asked.
pub struct Mock {
    server: MockServer,
    runtime: Runtime,
}

impl Mock {
    pub fn start() -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        Self { server: runtime.block_on(MockServer::start()), runtime }
    }

    pub fn base_url(&self) -> String {
        self.server.uri()
    }

    /// From now on this PIN is answered so.
    pub fn answers(&self, pin: &str, response: ResponseTemplate) {
        let mock = wiremock::Mock::given(method("GET")).and(path(format!("/2fa/1/pin/{pin}/status")));
        self.runtime.block_on(mock.respond_with(response).mount(&self.server));
    }

    /// From now on every PIN is answered so, and only so.
    pub fn answers_all(&self, response: ResponseTemplate) {
        self.runtime.block_on(async {
            self.server.reset().await;
            wiremock::Mock::given(method("GET")).respond_with(response).mount(&self.server).await;
        });
    }

    /// Requests since the start, or since [`Mock::answers_all`].
    pub fn requests(&self) -> usize {
        self.requests_that(|_| true)
    }

    /// Of those, requests for this PIN.
    pub fn requests_for(&self, pin: &str) -> usize {
        self.requests_that(|path| path == format!("/2fa/1/pin/{pin}/status"))
    }

    fn requests_that(&self, count: impl Fn(&str) -> bool) -> usize {
        let requests = self.runtime.block_on(self.server.received_requests()).unwrap();
        requests.iter().filter(|request| count(request.url.path())).count()
    }
}

/// A delivery as the API tells it.
pub fn delivery(status: &str, is_final: bool) -> serde_json::Value {
    serde_json::json!({"status": status, "description": format!("about {status}"), "finalStatus": is_final})
}

/// The answer for a PIN whose only delivery arrived.
pub fn delivered() -> ResponseTemplate {
    ResponseTemplate::new(200).set_body_json([delivery("MESSAGE_DELIVERED", true)])
}
