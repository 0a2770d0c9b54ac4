//! The daemon as a service: what it tells the service manager, the socket that it is passed, SIGHUP.
//!
//! A service manager is played by the test: a datagram socket for the notifications, a listening socket that
//! is passed as standard input. The real one is in `tests/systemd.rs`.

mod daemon;
mod doctor;
mod notify;
mod passed_socket;
mod reload;
