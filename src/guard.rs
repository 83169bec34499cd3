//! Panics of the user's code: caught, and told with message, place and backtrace.

use std::any::Any;
use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::sync::Once;

thread_local! {
    /// Whether this thread runs the user's code just now.
    static CATCHING: Cell<bool> = const { Cell::new(false) };
    static CAUGHT: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// A backtrace is stored with the job, and most of it is the way to the worker.
const LONGEST: usize = 8 * 1024;

/// Runs the user's code; a panic becomes its description.
pub(crate) fn catch<T>(code: impl FnOnce() -> T) -> Result<T, String> {
    listen();
    CATCHING.set(true);
    let result = panic::catch_unwind(AssertUnwindSafe(code));
    CATCHING.set(false);
    let caught = CAUGHT.take();
    result.map_err(|payload| {
        let text = caught.unwrap_or_else(|| format!("panicked: {}", message(&*payload)));
        // What was thrown may itself panic when it is dropped.
        let _ = panic::catch_unwind(AssertUnwindSafe(|| drop(payload)));
        text
    })
}

/// Only the hook knows where a panic happened. It passes everything on to the hook that was there before.
fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let others = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if CATCHING.get() {
                CAUGHT.set(Some(describe(info)));
            }
            others(info);
        }));
    });
}

fn describe(info: &PanicHookInfo<'_>) -> String {
    let place = info.location().map(|place| format!(" at {place}")).unwrap_or_default();
    let mut text = format!("panicked{place}: {}\n{}", message(info.payload()), Backtrace::force_capture());
    if text.len() > LONGEST {
        text = String::from_utf8_lossy(&text.as_bytes()[..LONGEST]).into_owned() + "\n[cut]";
    }
    text
}

fn message(payload: &(dyn Any + Send)) -> &str {
    match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text,
        _ => "with a value that is no text",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_told_with_message_place_and_backtrace() {
        let text = catch(|| panic!("out of {}", "paper")).unwrap_err();
        assert!(text.starts_with("panicked at "), "{text}");
        assert!(text.contains("guard.rs:") && text.contains(": out of paper\n"), "{text}");
        assert!(text.contains("0: "), "a backtrace: {text}");
    }

    #[test]
    fn what_is_thrown_may_be_anything() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("again");
            }
        }
        let text = catch(|| panic::panic_any(Bomb)).unwrap_err();
        assert!(text.contains("a value that is no text"), "{text}");
        assert_eq!(catch(|| 5), Ok(5));
    }
}
