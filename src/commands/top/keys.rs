//! What each key does. Pure.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::state::State;

/// The longest filter, in characters.
const LONGEST_FILTER: usize = 64;

/// What remains to be done after a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Draw,
    /// Ask for the PINs in flight.
    Fetch,
    Quit,
}

/// Every key with what it does, for the help.
pub const HELP: [(&str, &str); 7] = [
    ("q", "quit (also Ctrl-C)"),
    ("p", "pause: the numbers stay as they are, until p again"),
    ("s", "sort the PINs: oldest first, most polls first, next poll first"),
    ("/", "filter sinks and PINs by a part of their name, ID or status; Enter keeps it"),
    ("Esc", "remove the filter, or leave this help"),
    ("r", "ask for the PINs in flight again: they are not refreshed by themselves"),
    ("?", "this help"),
];

/// Applies a key.
pub fn act(state: &mut State, key: KeyEvent) -> Action {
    if key.kind == KeyEventKind::Release {
        return Action::Draw;
    }
    let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
    match key.code {
        KeyCode::Char('c' | 'd') if is_control => return Action::Quit,
        KeyCode::Char(_) if is_control => {}
        KeyCode::Esc => {
            state.filter.clear();
            (state.is_typing, state.shows_help) = (false, false);
        }
        KeyCode::Enter => state.is_typing = false,
        KeyCode::Backspace if state.is_typing => _ = state.filter.pop(),
        KeyCode::Char(c) if state.is_typing && state.filter.chars().count() < LONGEST_FILTER => {
            state.filter.push(c);
        }
        // A full filter takes no more letters, and they mean nothing else meanwhile.
        KeyCode::Char(_) if state.is_typing => {}
        KeyCode::Char('q') => return Action::Quit,
        KeyCode::Char('r') => return Action::Fetch,
        KeyCode::Char('p' | ' ') => state.is_paused = !state.is_paused,
        KeyCode::Char('s') => state.sort = state.sort.next(),
        KeyCode::Char('/') => (state.is_typing, state.shows_help) = (true, false),
        KeyCode::Char('?' | 'h') => state.shows_help = !state.shows_help,
        _ => {}
    }
    Action::Draw
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::commands::top::state::Sort;

    fn press(state: &mut State, keys: &str) -> Action {
        let mut last = Action::Draw;
        for key in keys.chars() {
            let code = match key {
                '\n' => KeyCode::Enter,
                '\x1b' => KeyCode::Esc,
                '\x7f' => KeyCode::Backspace,
                key => KeyCode::Char(key),
            };
            last = act(state, KeyEvent::from(code));
        }
        last
    }

    #[test]
    fn keys_pause_sort_help_fetch_and_quit() {
        let mut state = State::new(Path::new("/s"), true);
        press(&mut state, "ps?");
        assert!(state.is_paused && state.shows_help && state.sort == Sort::Polls);
        press(&mut state, "p\x1b");
        assert!(!state.is_paused && !state.shows_help);
        assert_eq!((press(&mut state, "r"), press(&mut state, "q")), (Action::Fetch, Action::Quit));
        let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(act(&mut state, interrupt), Action::Quit, "a terminal in raw mode sends no SIGINT");
    }

    #[test]
    fn letters_typed_into_the_filter_are_not_commands() {
        let mut state = State::new(Path::new("/s"), true);
        assert_eq!(press(&mut state, "/qps\x7f"), Action::Draw);
        assert_eq!((state.filter.as_str(), state.is_typing, state.is_paused), ("qp", true, false));
        press(&mut state, "\np");
        assert_eq!((state.filter.as_str(), state.is_typing, state.is_paused), ("qp", false, true));
        press(&mut state, "\x1b");
        assert_eq!(state.filter, "");
        press(&mut state, &format!("/{}", "x".repeat(500)));
        assert_eq!(state.filter.len(), LONGEST_FILTER);
    }
}
