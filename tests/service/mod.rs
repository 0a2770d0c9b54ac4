//! The daemon as a service: notifications, passed sockets and SIGHUP.
//!
//! The test acts as the service manager: a datagram socket for the notifications, a listening socket that
//! is passed as standard input. The real one is in `tests/systemd.rs`.

mod daemon;
mod doctor;
mod notify;
mod passed_socket;
mod reload;
