//! Events of a monitor that `tunnel_monitor top` is connected to, whoever that is: whatever it says, and whatever the
//! user presses meanwhile, there is a picture, and nothing in it moves the cursor. Before the first NUL stand the
//! width, the height and the keys; the events are behind it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use netbpf::tunnel_monitor::top::drawn;

fuzz_target!(|data: &[u8]| {
    let Some(end) = data.iter().position(|byte| *byte == 0) else {
        return;
    };
    let (before, events) = (&data[..end], &data[end + 1..]);
    let ([width, height, keys @ ..], false) = (before, events.len() > 1 << 16) else {
        return;
    };
    let picture = drawn(events, keys, ((*width).into(), (*height).into()));
    for cell in picture.content() {
        let symbol = cell.symbol();
        assert!(!symbol.contains(char::is_control), "{symbol:?}");
    }
});
