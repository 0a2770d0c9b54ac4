//! Any line that a client may send. No panic; what is taken is within its limits; what is refused says why in
//! one line.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pinwatch::protocol::{MAX_LINE, Request, cancel, parse, show, wait};

fuzz_target!(|data: &[u8]| {
    if data.len() > MAX_LINE || data.contains(&b'\n') {
        return;
    }
    match parse(data) {
        Ok(request) => check(request),
        Err(refusal) => {
            assert!(!refusal.message.is_empty(), "{}", refusal.code);
        }
    }
});

fn check(request: Request) {
    match request {
        Request::Submit(submit) => {
            assert!((1..=128).contains(&submit.pin_id.as_str().len()));
            assert!(submit.deadline.is_none_or(|deadline| !deadline.is_zero()));
            let metadata = submit.metadata.map(|metadata| metadata.get().to_owned());
            assert!(metadata.is_none_or(|metadata| !metadata.contains('\n')));
        }
        Request::Show(show::Request { pin_id })
        | Request::Cancel(cancel::Request { pin_id })
        | Request::Wait(wait::Request { pin_id, .. }) => {
            assert!((1..=128).contains(&pin_id.as_str().len()));
        }
        _ => {}
    }
}
