//! A network between a node and its database that can be cut, healed and reset.
//!
//! A cut network behaves like a dead switch: nothing arrives and nobody is notified, connections seem to open, and
//! nothing that was sent is lost. It arrives when the network is healed, however late that is: a COMMIT
//! that comes after the lease's end is just what fencing is for.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

pub struct Proxy {
    port: u16,
    line: Arc<Line>,
}

#[derive(Default)]
struct Line {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Where connections lead that are opened from now on.
    to: u16,
    cut: bool,
    over: bool,
    /// Both ends of every connection since the last reset.
    streams: Vec<TcpStream>,
}

impl Proxy {
    /// Listens on a port of its own, and connects to `port`.
    pub fn start(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = listener.local_addr().unwrap().port();
        let line = Arc::<Line>::default();
        line.lock().to = port;
        let theirs = line.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if theirs.lock().over {
                    return;
                }
                let line = theirs.clone();
                // A connection that fails is one that ends, which the node must live with.
                thread::spawn(move || line.serve(stream));
            }
        });
        Self { port: ours, line }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// From now on nothing arrives.
    pub fn cut(&self) {
        self.line.lock().cut = true;
    }

    /// Delivers what was held back, and forwards again.
    pub fn heal(&self) {
        self.line.lock().cut = false;
        self.line.changed.notify_all();
    }

    /// Ends all connections and leads new ones to this port, like an address that moves with the primary.
    pub fn move_to(&self, port: u16) {
        self.line.lock().to = port;
        self.reset();
    }

    /// Ends every connection at once.
    pub fn reset(&self) {
        for stream in self.line.lock().streams.drain(..) {
            // It may have ended already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.line.lock().over = true;
        self.reset();
        self.heal();
        // Wakes the listener, which then ends.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

impl Line {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits as long as nothing arrives.
    fn whole(&self) {
        let state = self.changed.wait_while(self.lock(), |state| state.cut && !state.over);
        drop(state.unwrap_or_else(PoisonError::into_inner));
    }

    fn serve(self: Arc<Self>, node: TcpStream) -> io::Result<()> {
        self.whole();
        let to = self.lock().to;
        let server = TcpStream::connect(("127.0.0.1", to))?;
        for stream in [&node, &server] {
            stream.set_nodelay(true)?;
        }
        let (node_too, server_too) = (node.try_clone()?, server.try_clone()?);
        self.lock().streams.extend([node.try_clone()?, server.try_clone()?]);
        let line = self.clone();
        thread::spawn(move || line.copy(server_too, node_too));
        self.copy(node, server);
        Ok(())
    }

    /// Copies one way until that way ends, and tells the other side that it has.
    fn copy(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut bytes = [0; 16 * 1024];
        loop {
            let read = from.read(&mut bytes);
            self.whole();
            match read {
                Ok(count) if count > 0 && to.write_all(&bytes[..count]).is_ok() => {}
                _ => break,
            }
        }
        let _ = to.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
    }
}
