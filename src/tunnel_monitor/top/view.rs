//! Draws the state of the view. Only what is visible is drawn, so ten lines cost what ten thousand do.

use std::borrow::Cow;
use std::net::IpAddr;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Span;

use super::figures::{Unit, rate, share, short, span};
use super::model::{Column, FRESH, Figures, Model, Subject, View};
use super::picture::Head;
use crate::tunnel_monitor::flow::{Counts, Encap};

/// Lower, and only the table is left.
const LOW: u16 = 12;
/// Narrower, and words are shorter.
const NARROW: usize = 60;
/// Names are not made narrower for another column.
const NARROWEST_NAME: usize = 14;

/// What the terminal can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Look {
    /// Colours only repeat what words and signs say.
    pub has_colours: bool,
    /// Otherwise ASCII.
    pub has_unicode: bool,
}

impl Look {
    /// What the environment says: NO_COLOR (no-color.org), and the locale's encoding.
    pub(super) fn of(variable: impl Fn(&str) -> Option<String>) -> Look {
        let said = |name: &str| variable(name).filter(|value| !value.is_empty());
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(said);
        let encoding = locale.unwrap_or_default().to_ascii_lowercase();
        Look {
            has_colours: said("NO_COLOR").is_none(),
            has_unicode: encoding.contains("utf-8") || encoding.contains("utf8"),
        }
    }

    fn sign(self, unicode: &'static str, ascii: &'static str) -> &'static str {
        if self.has_unicode { unicode } else { ascii }
    }

    fn between(self) -> &'static str {
        self.sign("\u{2194}", "-")
    }

    fn inside(self) -> &'static str {
        self.sign("\u{203a}", ">")
    }

    fn cut(self) -> &'static str {
        self.sign("\u{2026}", "~")
    }

    fn dot(self) -> &'static str {
        self.sign(" \u{b7} ", " | ")
    }

    fn coloured(self, style: Style, colour: Color) -> Style {
        if self.has_colours {
            style.fg(colour)
        } else {
            style
        }
    }

    fn warning(self) -> Style {
        self.coloured(BOLD, Color::Yellow)
    }
}

const PLAIN: Style = Style::new();
const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
const DIM: Style = Style::new().add_modifier(Modifier::DIM);
const REVERSED: Style = Style::new().add_modifier(Modifier::REVERSED);

/// Which lines of the screen are for what.
#[derive(Debug)]
struct Layout {
    title: Option<u16>,
    tabs: Option<u16>,
    scope: Option<u16>,
    header: u16,
    all: Option<u16>,
    /// First line of the table.
    first: u16,
    /// Lines of the table.
    room: u16,
    /// Where warnings begin, and where they end.
    warnings: (u16, u16),
    footer: Option<u16>,
    keys: Option<u16>,
}

impl Layout {
    fn of(area: Rect, warnings: usize) -> Layout {
        let is_low = area.height < LOW;
        let mut lines = area.y..area.bottom();
        let mut above = |wanted: bool| wanted.then(|| lines.next()).flatten();
        let title = above(area.height > 5);
        let tabs = above(area.height > 6);
        let scope = above(!is_low);
        let header = above(true).unwrap_or(area.y);
        let all = above(area.height > 4);
        let first = lines.start;
        // A line of the table stays, however many warnings there are.
        let mut below = |wanted: bool| {
            let has_room = wanted && lines.end > first + 1;
            has_room.then(|| lines.next_back()).flatten()
        };
        let keys = below(!is_low);
        let footer = below(area.height > 8);
        let most = if is_low { 1 } else { 3 };
        let shown = (0..warnings.min(most)).filter_map(|_| below(true)).count();
        Layout {
            title,
            tabs,
            scope,
            header,
            all,
            first,
            room: lines.end.saturating_sub(first),
            warnings: (lines.end, lines.end + shown as u16),
            footer,
            keys,
        }
    }
}

/// How many lines of the table have room.
pub(super) fn room(model: &Model, area: Rect) -> usize {
    Layout::of(area, warnings(model).len()).room.into()
}

/// Draws everything.
pub(super) fn render(model: &Model, look: Look, area: Rect, buffer: &mut Buffer) {
    let area = area.intersection(buffer.area);
    if area.is_empty() {
        return;
    }
    let canvas = &mut Canvas { area, buffer, look };
    let warnings = warnings(model);
    let layout = Layout::of(area, warnings.len());
    if let Some(y) = layout.title {
        title(model, canvas, y);
    }
    if model.is_help_open {
        help(canvas, layout.title.map_or(area.y, |y| y + 1));
        return;
    }
    if let Some(y) = layout.tabs {
        tabs(model, canvas, y);
    }
    if let Some(y) = layout.scope {
        scope(model, canvas, y);
    }
    table(model, canvas, &layout);
    for (y, warning) in (layout.warnings.0..layout.warnings.1).zip(&warnings) {
        canvas.text(y, &format!(" ! {warning}"), look.warning());
    }
    if let (Some(y), Some(picture)) = (layout.footer, &model.shown) {
        footer(&picture.head, canvas, y);
    }
    // What is typed has to be seen, whatever it hides.
    let bottom = area.bottom() - 1;
    match (&model.prompt, layout.keys) {
        (Some(prompt), _) => {
            canvas.clear(bottom);
            let hint = match &prompt.error {
                Some(error) => error.clone(),
                None => "IP, CIDR, VNI, encapsulation; Enter, Esc".into(),
            };
            let style = if prompt.error.is_some() {
                look.warning()
            } else {
                DIM
            };
            let typed = format!(" / {}_", prompt.text);
            canvas.ends(bottom, (&typed, BOLD), (&format!("{hint} "), style));
        }
        (None, Some(y)) => keys(model, canvas, y),
        (None, None) => {}
    }
}

struct Canvas<'a> {
    area: Rect,
    buffer: &'a mut Buffer,
    look: Look,
}

impl Canvas<'_> {
    fn width(&self) -> usize {
        self.area.width.into()
    }

    fn clear(&mut self, y: u16) {
        let line = Rect {
            y,
            height: 1,
            ..self.area
        };
        for position in line.positions() {
            self.buffer[position].reset();
        }
    }

    /// From the left; what has no room ends with a sign.
    fn text(&mut self, y: u16, text: &str, style: Style) {
        self.at(y, 0, self.width(), text, style);
    }

    fn at(&mut self, y: u16, x: usize, width: usize, text: &str, style: Style) {
        let width = width.min(self.width().saturating_sub(x));
        if y >= self.area.bottom() || width == 0 {
            return;
        }
        let text = fitted(text, width, self.look);
        let x = self.area.x + x as u16;
        self.buffer.set_stringn(x, y, text, width, style);
    }

    /// Ending there.
    fn before(&mut self, y: u16, end: usize, text: &str, style: Style) {
        let start = end.saturating_sub(columns(text));
        self.at(y, start, end - start, text, style);
    }

    /// At both ends of a line. The right one gives way: first words, then all of it.
    fn ends(&mut self, y: u16, left: (&str, Style), right: (&str, Style)) {
        self.text(y, left.0, left.1);
        let room = self.width().saturating_sub(columns(left.0) + 1);
        if columns(right.0) <= room {
            self.before(y, self.width(), right.0, right.1);
        } else if room > 8 {
            self.at(y, self.width() - room, room, right.0, right.1);
        }
    }

    fn style(&mut self, y: u16, style: Style) {
        let line = Rect {
            y,
            height: 1,
            ..self.area
        };
        self.buffer.set_style(line.intersection(self.area), style);
    }
}

/// Cells that a text takes.
fn columns(text: &str) -> usize {
    Span::raw(text).width()
}

fn fitted(text: &str, width: usize, look: Look) -> Cow<'_, str> {
    if columns(text) <= width {
        return text.into();
    }
    let kept: String = text.chars().take(width.saturating_sub(1)).collect();
    (kept + look.cut()).into()
}

fn title(model: &Model, canvas: &mut Canvas<'_>, y: u16) {
    let state = if model.is_paused {
        "PAUSED".to_owned()
    } else if model.shown.is_none() {
        "waiting".into()
    } else if model.trouble.is_some() || model.age > FRESH {
        format!("{} old", span(model.age.as_secs_f64()))
    } else {
        "live".into()
    };
    let up = model.shown.as_ref().map_or_else(String::new, |picture| {
        format!("{}up {}", canvas.look.dot(), span(picture.head.elapsed))
    });
    let is_narrow = canvas.width() < NARROW;
    let name = if is_narrow { "" } else { "tunnel_monitor  " };
    let right = if is_narrow {
        format!(" {state} ")
    } else {
        format!(" {state}{up} ")
    };
    // Whether it is live matters more than whose it is.
    let room = canvas.width().saturating_sub(columns(&right));
    canvas.at(y, 0, room, &format!(" {name}{}", model.source), PLAIN);
    canvas.before(y, canvas.width(), &right, PLAIN);
    canvas.style(y, REVERSED.add_modifier(Modifier::BOLD));
}

fn tabs(model: &Model, canvas: &mut Canvas<'_>, y: u16) {
    let mut x = 1;
    for (place, view) in View::ALL.into_iter().enumerate() {
        let is_open = view == model.view;
        let (open, close) = if is_open { ("[", "]") } else { (" ", " ") };
        let number = match &model.shown {
            Some(_) => format!(" {}", model.numbers[place]),
            None => String::new(),
        };
        let (title, brief) = view.titles();
        let title = if canvas.width() < NARROW {
            brief
        } else {
            title
        };
        let text = format!("{open}{} {title}{number}{close}", place + 1);
        let style = if is_open { BOLD } else { PLAIN };
        canvas.at(y, x, columns(&text), &text, style);
        x += columns(&text) + 1;
    }
    let order = if model.is_order_kept {
        format!("{}order kept", canvas.look.dot())
    } else {
        String::new()
    };
    let unit = model.unit;
    let right = format!("{}, total {}{order} ", unit.rate(), unit.amount());
    if x + columns(&right) <= canvas.width() {
        canvas.before(y, canvas.width(), &right, PLAIN);
    }
}

fn scope(model: &Model, canvas: &mut Canvas<'_>, y: u16) {
    let look = canvas.look;
    let path: Vec<String> = model
        .path()
        .map(|subject| name(subject, false, usize::MAX, look))
        .collect();
    let mut left = if path.is_empty() {
        " all".to_owned()
    } else {
        format!(" in {}", path.join(&format!(" {} ", look.inside())))
    };
    if let Some(filter) = &model.filter {
        left.push_str(&format!("   filter: {}", filter.text()));
    }
    let (lines, first, end) = model.extent();
    let right = if lines == 0 {
        String::new()
    } else {
        format!("{}-{end} of {lines} ", first + 1)
    };
    let style = if model.filter.is_some() || !path.is_empty() {
        BOLD
    } else {
        DIM
    };
    canvas.ends(y, (&left, style), (&right, DIM));
}

/// A column of the table beside the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    Figure(Column),
    Share,
    /// Packets of the last second, where other figures are in bits or bytes.
    RxPackets,
    TxPackets,
}

/// In the order in which they get room, and how many cells each takes with its gap.
const BY_IMPORTANCE: [(Shown, usize); 9] = [
    (Shown::Figure(Column::RxSecond), 7),
    (Shown::Figure(Column::TxSecond), 7),
    (Shown::Figure(Column::Total), 7),
    (Shown::Share, 7),
    (Shown::Figure(Column::RxWindow), 8),
    (Shown::Figure(Column::TxWindow), 8),
    (Shown::Figure(Column::Flows), 8),
    (Shown::RxPackets, 9),
    (Shown::TxPackets, 9),
];

/// From left to right.
const IN_PLACE: [Shown; 9] = [
    Shown::Figure(Column::RxSecond),
    Shown::Figure(Column::TxSecond),
    Shown::RxPackets,
    Shown::TxPackets,
    Shown::Share,
    Shown::Figure(Column::RxWindow),
    Shown::Figure(Column::TxWindow),
    Shown::Figure(Column::Total),
    Shown::Figure(Column::Flows),
];

/// Those that have room beside names of this width. What is sorted by is shown first of all.
fn shown(width: usize, longest: usize, sorted: Column, unit: Unit) -> Vec<(Shown, usize)> {
    // A column is worth more than the middle of the longest addresses.
    let names = longest.min(width * 6 / 10).max(NARROWEST_NAME);
    let mut room = width.saturating_sub(names);
    let mut chosen = Vec::new();
    let is_sorted = |shown: &Shown| *shown == Shown::Figure(sorted);
    let (first, rest): (Vec<_>, Vec<_>) =
        BY_IMPORTANCE.into_iter().partition(|(it, _)| is_sorted(it));
    let is_twice = |it| matches!(it, Shown::RxPackets | Shown::TxPackets) && unit == Unit::Packets;
    for (it, cells) in first.into_iter().chain(rest) {
        if is_twice(it) {
            continue;
        }
        if cells > room {
            break;
        }
        room -= cells;
        chosen.push((it, cells));
    }
    // Half of a window says little; by itself it is shown to be sorted by.
    let has = |wanted: Column| {
        let wanted = Shown::Figure(wanted);
        chosen.iter().any(|(it, _)| *it == wanted)
    };
    if has(Column::RxWindow) && !has(Column::TxWindow) {
        chosen.retain(|(it, _)| is_sorted(it) || *it != Shown::Figure(Column::RxWindow));
    }
    let place = |it: Shown| IN_PLACE.iter().position(|other| *other == it);
    chosen.sort_by_key(|(it, _)| place(*it));
    chosen
}

/// How the table is divided.
struct Columns {
    name: usize,
    /// Each with the cells that it takes.
    figures: Vec<(Shown, usize)>,
}

impl Columns {
    fn of(model: &Model, width: usize) -> Columns {
        // In front of a name is the sign of the chosen line, behind it a gap.
        let longest = model.longest() + 2;
        let mut figures = shown(width, longest, model.column, model.unit);
        let taken: usize = figures.iter().map(|(_, cells)| cells).sum();
        let left = width.saturating_sub(taken + longest);
        // Wide terminals have air between figures, but figures are not far from their names.
        let air = (left / figures.len().max(1)).min(4);
        for (_, cells) in &mut figures {
            *cells += air;
        }
        let taken: usize = figures.iter().map(|(_, cells)| cells).sum();
        let widest = longest.max(24);
        Columns {
            name: width.saturating_sub(taken).min(widest),
            figures,
        }
    }

    /// Where each figure ends.
    fn ends(&self) -> impl Iterator<Item = (Shown, usize)> {
        let mut end = self.name;
        self.figures.iter().map(move |(shown, cells)| {
            end += cells;
            (*shown, end)
        })
    }
}

fn table(model: &Model, canvas: &mut Canvas<'_>, layout: &Layout) {
    let Some(picture) = &model.shown else {
        nothing(model, canvas, layout.header);
        return;
    };
    let look = canvas.look;
    let is_short = model.is_in_network();
    let columns = Columns::of(model, canvas.width());

    header(model, &picture.head, &columns, canvas, layout.header);
    let (lines, chosen) = model.visible();
    if lines.is_empty() {
        nothing(model, canvas, layout.first);
        return;
    }
    if let Some(y) = layout.all {
        row(
            model,
            &columns,
            canvas,
            (y, " all of these"),
            &model.all,
            BOLD,
        );
    }
    for (place, line) in lines.iter().take(layout.room.into()).enumerate() {
        let y = layout.first + place as u16;
        let sign = if place == chosen { ">" } else { " " };
        let room = columns.name.saturating_sub(2);
        let name = format!("{sign}{}", name(line.key, is_short, room, look));
        let is_silent = line.figures.second.is_zero();
        let style = match (place == chosen, is_silent) {
            (true, _) => REVERSED,
            (false, true) => DIM,
            (false, false) => PLAIN,
        };
        row(model, &columns, canvas, (y, &name), &line.figures, style);
        canvas.style(y, style);
    }
}

fn header(model: &Model, head: &Head, columns: &Columns, canvas: &mut Canvas<'_>, y: u16) {
    let look = canvas.look;
    let (down, up) = (look.sign("\u{25bc}", "v"), look.sign("\u{25b2}", "^"));
    // Names are sorted upwards, unless reversed.
    let is_down = (model.column == Column::Name) == model.is_reversed;
    let sign = |column: Column| match model.column == column {
        true if is_down => down,
        true => up,
        false => "",
    };
    let ends = format!("LOCAL {} REMOTE", look.between());
    let first = match model.view {
        View::Hosts => ends,
        View::Networks => "VNI".into(),
        View::Inner if model.is_in_network() => ends,
        View::Inner => format!("VNI  {ends}"),
    };
    let first = format!(" {first}{}", sign(Column::Name));
    canvas.at(y, 0, columns.name, &first, PLAIN);
    for (shown, end) in columns.ends() {
        let text = match shown {
            Shown::Share => "SHARE".into(),
            Shown::RxPackets => "RX pkt/s".into(),
            Shown::TxPackets => "TX pkt/s".into(),
            Shown::Figure(column) => heading(column, head) + sign(column),
        };
        canvas.before(y, end, &text, PLAIN);
    }
    canvas.style(y, BOLD.add_modifier(Modifier::UNDERLINED));
}

fn heading(column: Column, head: &Head) -> String {
    // The window is whole seconds, give or take what a timer is late.
    let window = if head.window > 0.0 {
        format!("{:.0}s", head.window.min(9999.0))
    } else {
        "win".into()
    };
    match column {
        Column::Name => String::new(),
        Column::RxSecond => "RX/s".into(),
        Column::TxSecond => "TX/s".into(),
        Column::RxWindow => format!("RX {window}"),
        Column::TxWindow => format!("TX {window}"),
        Column::Total => "TOTAL".into(),
        Column::Flows => "FLOWS".into(),
    }
}

fn row(
    model: &Model,
    columns: &Columns,
    canvas: &mut Canvas<'_>,
    (y, name): (u16, &str),
    figures: &Figures,
    style: Style,
) {
    canvas.at(y, 0, columns.name, name, style);
    for (shown, end) in columns.ends() {
        canvas.before(y, end, &cell(shown, figures, model), style);
    }
}

fn cell(shown: Shown, figures: &Figures, model: &Model) -> String {
    let unit = model.unit;
    let head = model.shown.as_ref().map(|picture| &picture.head);
    let (second, window) = head.map_or((0.0, 0.0), |head| (head.second, head.window));
    let column = match shown {
        // Of what passed in the last second, both ways.
        Shown::Share => {
            let of = |counts: Counts| unit.of_amount(counts);
            return share(of(figures.second), of(model.all.second));
        }
        Shown::RxPackets => return rate(figures.second.rx_pkts, second),
        Shown::TxPackets => return rate(figures.second.tx_pkts, second),
        Shown::Figure(column) => column,
    };
    match column {
        Column::Name => String::new(),
        Column::RxSecond => rate(unit.of_rate(figures.second).0, second),
        Column::TxSecond => rate(unit.of_rate(figures.second).1, second),
        Column::RxWindow => rate(unit.of_rate(figures.window).0, window),
        Column::TxWindow => rate(unit.of_rate(figures.window).1, window),
        Column::Total => short(unit.of_amount(figures.total) as f64),
        Column::Flows => short(figures.flows as f64),
    }
}

/// Says why there are no lines.
fn nothing(model: &Model, canvas: &mut Canvas<'_>, y: u16) {
    let interfaces = model.shown.as_ref().map(|it| it.head.interfaces.join(", "));
    let lines = match (&model.shown, &model.filter) {
        (None, _) => [
            format!("Waiting for {}.", model.source),
            "It has to be a tunnel_monitor that runs, with its HTTP address.".into(),
        ],
        (Some(_), Some(filter)) if model.hides_all() => [
            format!("No flow is like '{}'.", filter.text()),
            "Esc clears the filter, / changes it.".into(),
        ],
        (Some(_), _) if model.hides_all() => [
            "There are no flows in here any more.".into(),
            "Esc goes back.".into(),
        ],
        _ => [
            format!(
                "No tunnel packets yet on {}.",
                interfaces.unwrap_or_default()
            ),
            "In the simulation 'tunnel_monitor traffic' sends some.".into(),
        ],
    };
    for (line, y) in lines.iter().zip(y + 1..canvas.area.bottom()) {
        canvas.text(y, &format!("  {line}"), PLAIN);
    }
}

/// Both ways; they may be made up.
fn packets(counts: Counts) -> u64 {
    counts.rx_pkts.saturating_add(counts.tx_pkts)
}

/// What has to be known, the most urgent first.
fn warnings(model: &Model) -> Vec<String> {
    let mut warnings = Vec::new();
    if let Some(trouble) = &model.trouble {
        let age = match &model.shown {
            Some(_) => format!("no answer for {}", span(model.age.as_secs_f64())),
            None => "no answer".into(),
        };
        warnings.push(format!("{age}, asking again: {trouble}"));
    } else if model.shown.is_some() && model.age > FRESH {
        warnings.push(format!("nothing new for {}", span(model.age.as_secs_f64())));
    }
    let Some(picture) = &model.shown else {
        return warnings;
    };
    let head = &picture.head;
    if !head.other.is_zero() {
        warnings.push(format!(
            "no room for all flows: {} packets are in no line (--max-entries)",
            short(packets(head.other) as f64)
        ));
    } else if head.capacity > 0 && head.flows >= head.capacity {
        warnings.push(format!(
            "the table is full with {} flows (--max-entries)",
            head.flows
        ));
    }
    if head.uncounted.malformed > 0 {
        warnings.push(format!(
            "{} malformed tunnel packets are not counted",
            short(head.uncounted.malformed as f64)
        ));
    }
    warnings
}

fn footer(head: &Head, canvas: &mut Canvas<'_>, y: u16) {
    let dot = canvas.look.dot();
    let number = |number: u64| short(number as f64);
    let names = match &head.interfaces[..] {
        [] => "no interface".into(),
        [name] => name.clone(),
        [name, rest @ ..] => format!("{name} +{}", rest.len()),
    };
    let uncounted = &head.uncounted;
    let parts = [
        names,
        format!("{} of {} flows", head.flows, head.capacity),
        format!("other {}", number(packets(head.other))),
        format!("forgotten {}", number(packets(head.forgotten))),
    ];
    // What is no tunnel packet is nobody's loss.
    let reasons = [
        ("fragments", uncounted.fragments),
        ("multicast", uncounted.multicast),
        ("malformed", uncounted.malformed),
        ("table errors", uncounted.table_errors),
    ];
    let told: Vec<String> = reasons
        .iter()
        .filter(|(_, packets)| *packets > 0)
        .map(|(name, packets)| format!("{} {name}", number(*packets)))
        .collect();
    let line = format!(" {}{dot}uncounted", parts.join(dot));
    let sum = reasons
        .iter()
        .fold(0_u64, |sum, (_, packets)| sum.saturating_add(*packets));
    let by_reason = format!("{line}: {}", told.join(", "));
    if told.is_empty() || columns(&by_reason) > canvas.width() {
        canvas.text(y, &format!("{line} {}", number(sum)), DIM);
    } else {
        canvas.text(y, &by_reason, DIM);
    }
}

/// As many as have room, the most needed first.
fn keys(model: &Model, canvas: &mut Canvas<'_>, y: u16) {
    let mut hints = vec!["q quit", "? help", "Tab view", "Enter open"];
    if model.path().next().is_some() || model.filter.is_some() {
        hints.push("Esc back");
    }
    hints.extend([
        "s sort",
        "/ filter",
        "u unit",
        "p pause",
        "Space keep order",
    ]);
    let mut line = String::new();
    for hint in hints {
        if columns(&line) + 2 + hint.len() > canvas.width() {
            break;
        }
        line.push_str(if line.is_empty() { " " } else { "  " });
        line.push_str(hint);
    }
    canvas.text(y, &line, PLAIN);
}

const HELP: [(&str, &str); 16] = [
    ("Tab, 1 2 3", "host pairs, VNIs, inner pairs"),
    ("Up Down PgUp PgDn Home End", "choose a line (or k j g G)"),
    ("Enter", "look into it"),
    ("Esc, Backspace", "back; Esc clears the filter too"),
    ("s > and S <", "sort by the next column, by the one before"),
    ("r", "reverse the order"),
    ("Space", "keep lines where they are; again: sort"),
    ("/", "filter: IP, CIDR, VNI, vxlan, notip ..."),
    ("u", "bit/s, byte/s, packets/s"),
    ("p", "let the picture stand still; again: go on"),
    ("q, Ctrl-C", "quit"),
    ("", ""),
    ("RX, TX", "came in, went out by the monitored interface"),
    ("RX/s", "in the last second; RX 5s: in the last window"),
    ("SHARE", "of the last second, both ways, of these lines"),
    (
        "other, forgotten",
        "packets without room; of flows that were idle",
    ),
];

fn help(canvas: &mut Canvas<'_>, y: u16) {
    let keys = HELP.iter().map(|(keys, _)| keys.len()).max().unwrap_or(0);
    for ((key, text), y) in HELP.iter().zip(y + 1..canvas.area.bottom()) {
        canvas.at(y, 2, keys, key, BOLD);
        canvas.at(y, keys + 4, canvas.width(), text, PLAIN);
    }
    let bottom = canvas.area.bottom() - 1;
    if usize::from(bottom) > usize::from(y) + HELP.len() + 1 {
        canvas.text(bottom, " any key closes this", PLAIN);
    }
}

/// What a line is about, in so many cells. Without its network where all lines are of the same one.
fn name(subject: Subject, is_short: bool, width: usize, look: Look) -> String {
    match subject {
        Subject::Hosts(ends) => pair(ends, width, look),
        Subject::Network(vni, encap) => network(vni, encap),
        Subject::Inner(vni, encap, ends) => {
            let before = if is_short {
                String::new()
            } else {
                format!("{}  ", network(vni, encap))
            };
            let ends = match ends {
                Some(ends) => pair(ends, width.saturating_sub(before.len()), look),
                None => "not IP".into(),
            };
            before + &ends
        }
    }
}

/// As it is called: IP in IP has no numbers.
pub(super) fn network(vni: u32, encap: Encap) -> String {
    match encap {
        Encap::Ipip | Encap::Sit => encap.name().into(),
        _ => format!("{} {vni}", encap.name()),
    }
}

/// Both ends; of addresses without room the middle is left out, as both the network and the host count.
fn pair(ends: [IpAddr; 2], width: usize, look: Look) -> String {
    let [local, remote] = ends.map(|end| end.to_string());
    let room = width.saturating_sub(3);
    let (mut of_local, mut of_remote) = (room / 2, room - room / 2);
    // What one does not need the other may have.
    if local.len() < of_local {
        of_remote += of_local - local.len();
    } else if remote.len() < of_remote {
        of_local += of_remote - remote.len();
    }
    let local = without_middle(&local, of_local, look);
    let remote = without_middle(&remote, of_remote, look);
    format!("{local} {} {remote}", look.between())
}

/// Addresses are ASCII.
fn without_middle<'a>(address: &'a str, width: usize, look: Look) -> Cow<'a, str> {
    if address.len() <= width {
        return address.into();
    }
    let kept = width.saturating_sub(1);
    let behind = kept - kept / 2;
    let (start, end) = (&address[..kept / 2], &address[address.len() - behind..]);
    format!("{start}{}{end}", look.cut()).into()
}

#[cfg(test)]
mod tests {
    use super::super::examples::{counts, flow, known, update};
    use super::super::keys::Key;
    use super::super::picture::Known;
    use super::*;
    use crate::tunnel_monitor::flow::{Flow, Inner, Outer};
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use std::time::Duration;

    const LOOK: Look = Look {
        has_colours: false,
        has_unicode: true,
    };

    fn model() -> Model {
        let mut model = Model::new("http://127.0.0.1:8080".into());
        let row = |host: u8| {
            let traffic = u64::from(host - 2) * 123_456;
            let known = Known {
                second: counts(traffic),
                window: counts(4 * traffic),
                total: counts(99 * traffic),
                ..known(host)
            };
            (u32::from(host), known)
        };
        let mut event = update(754, true, (2..10).map(row).collect());
        event.head.flows = 8;
        event.head.totals = counts(1_000_000);
        model.update(event);
        model
    }

    fn with(model: &mut Model, change: impl FnOnce(&mut Head)) {
        change(&mut model.shown.as_mut().unwrap().head);
    }

    fn type_in(model: &mut Model, text: &str) {
        for it in text.chars() {
            model.key(Key::Char(it));
        }
    }

    fn drawn(model: &mut Model, look: Look, (width, height): (u16, u16)) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal
            .draw(|frame| {
                let area = frame.area();
                model.set_room(room(model, area));
                render(model, look, area, frame.buffer_mut());
            })
            .unwrap();
        let buffer = terminal.backend().buffer();
        let line = |y| {
            let cells = (0..width).map(|x| buffer[(x, y)].symbol());
            cells.collect::<String>().trim_end().to_owned()
        };
        (0..height).map(line).collect()
    }

    fn text(model: &mut Model, size: (u16, u16)) -> String {
        drawn(model, LOOK, size).join("\n")
    }

    fn assert_drawn(model: &mut Model, size: (u16, u16), expected: &str) {
        let text = text(model, size);
        // Lines that are empty at the end of the table are left out on both sides.
        let without_gap = |text: &str| {
            let lines: Vec<&str> = text.trim_matches('\n').lines().collect();
            let kept: Vec<&str> = lines.into_iter().filter(|line| !line.is_empty()).collect();
            kept.join("\n")
        };
        assert_eq!(text.lines().count(), usize::from(size.1));
        let (drawn, expected) = (without_gap(&text), without_gap(expected));
        assert_eq!(drawn, expected, "\n{drawn}\n");
    }

    #[test]
    fn at_80_by_24() {
        assert_drawn(
            &mut model(),
            (80, 24),
            "
 tunnel_monitor  http://127.0.0.1:8080                          live · up 12:34
 [1 host pairs 8]  2 VNIs 4   3 inner pairs 8                bit/s, total bytes
 all                                                                   1-8 of 8
 LOCAL ↔ REMOTE            RX/s▼   TX/s  SHARE   RX 5s   TX 5s  TOTAL   FLOWS
 all of these              27.7M  27.7M   100%   22.1M   22.1M   684M       8
>172.16.0.1 ↔ 172.16.0.9   6.91M  6.91M  25.0%   5.53M   5.53M   171M       1
 172.16.0.1 ↔ 172.16.0.8   5.93M  5.93M  21.4%   4.74M   4.74M   147M       1
 172.16.0.1 ↔ 172.16.0.7   4.94M  4.94M  17.9%   3.95M   3.95M   122M       1
 172.16.0.1 ↔ 172.16.0.6   3.95M  3.95M  14.3%   3.16M   3.16M  97.8M       1
 172.16.0.1 ↔ 172.16.0.5   2.96M  2.96M  10.7%   2.37M   2.37M  73.3M       1
 172.16.0.1 ↔ 172.16.0.4   1.98M  1.98M   7.1%   1.58M   1.58M  48.9M       1
 172.16.0.1 ↔ 172.16.0.3    988k   988k   3.6%    790k    790k  24.4M       1
 172.16.0.1 ↔ 172.16.0.2       0      0     0%       0       0      0       1
 h0-eth0 · 8 of 65536 flows · other 0 · forgotten 0 · uncounted 0
 q quit  ? help  Tab view  Enter open  s sort  / filter  u unit  p pause
",
        );
    }

    #[test]
    fn at_120_by_40() {
        let mut model = model();
        model.key(Key::Char('3'));
        model.key(Key::End);
        assert_drawn(
            &mut model,
            (120, 40),
            "
 tunnel_monitor  http://127.0.0.1:8080                                                                  live · up 12:34
  1 host pairs 8   2 VNIs 4  [3 inner pairs 8]                                                       bit/s, total bytes
 all                                                                                                           1-8 of 8
 VNI  LOCAL ↔ REMOTE                 RX/s▼    TX/s  RX pkt/s  TX pkt/s   SHARE    RX 5s    TX 5s   TOTAL    FLOWS
 all of these                        27.7M   27.7M     3.46M     3.46M    100%    22.1M    22.1M    684M        8
 vxlan 10001  10.0.1.1 ↔ 10.0.1.9    6.91M   6.91M      864k      864k   25.0%    5.53M    5.53M    171M        1
 vxlan 10000  10.0.0.1 ↔ 10.0.0.8    5.93M   5.93M      741k      741k   21.4%    4.74M    4.74M    147M        1
 vxlan 10003  10.0.3.1 ↔ 10.0.3.7    4.94M   4.94M      617k      617k   17.9%    3.95M    3.95M    122M        1
 vxlan 10002  10.0.2.1 ↔ 10.0.2.6    3.95M   3.95M      494k      494k   14.3%    3.16M    3.16M   97.8M        1
 vxlan 10001  10.0.1.1 ↔ 10.0.1.5    2.96M   2.96M      370k      370k   10.7%    2.37M    2.37M   73.3M        1
 vxlan 10000  10.0.0.1 ↔ 10.0.0.4    1.98M   1.98M      247k      247k    7.1%    1.58M    1.58M   48.9M        1
 vxlan 10003  10.0.3.1 ↔ 10.0.3.3     988k    988k      123k      123k    3.6%     790k     790k   24.4M        1
>vxlan 10002  10.0.2.1 ↔ 10.0.2.2        0       0         0         0      0%        0        0       0        1
 h0-eth0 · 8 of 65536 flows · other 0 · forgotten 0 · uncounted 0
 q quit  ? help  Tab view  Enter open  s sort  / filter  u unit  p pause  Space keep order
",
        );
    }

    #[test]
    fn at_40_by_10() {
        assert_drawn(
            &mut model(),
            (40, 10),
            "
 http://127.0.0.1:8080             live
 [1 hosts 8]  2 VNIs 4   3 inner 8
 LOCAL ↔ REMOTE            RX/s▼   TX/s
 all of these              27.7M  27.7M
>172.16.0.1 ↔ 172.16.0.9   6.91M  6.91M
 172.16.0.1 ↔ 172.16.0.8   5.93M  5.93M
 172.16.0.1 ↔ 172.16.0.7   4.94M  4.94M
 172.16.0.1 ↔ 172.16.0.6   3.95M  3.95M
 172.16.0.1 ↔ 172.16.0.5   2.96M  2.96M
 h0-eth0 · 8 of 65536 flows · other 0 ·…
",
        );
    }

    #[test]
    fn what_was_opened_and_filtered_is_named() {
        let mut model = model();
        model.key(Key::Enter);
        model.key(Key::Enter);
        type_in(&mut model, "/10.0.0.0/8");
        assert!(text(&mut model, (80, 24)).contains("\n / 10.0.0.0/8_ "));
        model.key(Key::Enter);
        let text = text(&mut model, (80, 24));
        let scope = " in 172.16.0.1 ↔ 172.16.0.9 › vxlan 10001   filter: 10.0.0.0/8";
        assert!(text.contains(scope), "{text}");
        assert!(text.contains("\n>10.0.1.1 ↔ 10.0.1.9 "), "{text}");
        assert!(text.contains("Esc back"), "{text}");
    }

    #[test]
    fn what_is_wrong_with_a_filter_is_said_beside_it() {
        let mut model = model();
        type_in(&mut model, "/lan");
        model.key(Key::Enter);
        let text = text(&mut model, (80, 24));
        assert!(
            text.contains(" / lan_ 'lan' is no IP") || text.contains("'lan' is no IP"),
            "{text}"
        );
    }

    #[test]
    fn warnings_have_numbers() {
        let mut model = model();
        with(&mut model, |head| {
            head.other = counts(617);
            head.forgotten = counts(1500);
            head.uncounted.multicast = 7;
            head.uncounted.malformed = 12;
            head.uncounted.not_tunnel = 999;
        });
        let text = text(&mut model, (80, 24));
        let full = " ! no room for all flows: 1.23k packets are in no line (--max-entries)";
        assert!(text.contains(full), "{text}");
        assert!(
            text.contains(" ! 12 malformed tunnel packets are not counted"),
            "{text}"
        );
        let footer = "other 1.23k · forgotten 3.00k · uncounted 19\n";
        assert!(text.contains(footer), "{text}");
        let text = self::text(&mut model, (100, 24));
        assert!(
            text.contains("uncounted: 7 multicast, 12 malformed\n"),
            "{text}"
        );
        with(&mut model, |head| {
            head.other = Counts::default();
            head.flows = 65_536;
        });
        let text = self::text(&mut model, (80, 24));
        assert!(
            text.contains(" ! the table is full with 65536 flows"),
            "{text}"
        );
    }

    #[test]
    fn without_an_answer_the_age_is_said_and_the_picture_stays() {
        let mut model = model();
        model.lost("connection refused".into());
        model.age = Duration::from_secs(7);
        let text = text(&mut model, (80, 24));
        assert!(text.contains(" 7 s old · up 12:34"), "{text}");
        let warning = " ! no answer for 7 s, asking again: connection refused";
        assert!(text.contains(warning), "{text}");
        assert!(text.contains("\n>172.16.0.1 ↔ 172.16.0.9 "), "{text}");
        // There is room for it on a small screen too.
        let text = self::text(&mut model, (40, 10));
        assert!(
            text.contains("\n ! no answer for 7 s, asking again: con…"),
            "{text}"
        );
        let mut silent = self::model();
        silent.age = FRESH + Duration::from_millis(600);
        let text = self::text(&mut silent, (80, 24));
        assert!(text.contains(" ! nothing new for 3 s"), "{text}");
    }

    #[test]
    fn nothing_to_see_has_its_reasons() {
        let mut model = Model::new("http://monitor".into());
        let text = |model: &mut Model| self::text(model, (80, 24));
        assert!(text(&mut model).contains("Waiting for http://monitor."));
        model.lost("refused".into());
        assert!(text(&mut model).contains(" ! no answer, asking again: refused"));
        model.update(update(1, true, Vec::new()));
        assert!(text(&mut model).contains("No tunnel packets yet on h0-eth0."));
        model.update(update(2, true, vec![(1, known(2))]));
        model.key(Key::Enter);
        model.update(update(3, true, vec![(1, known(3))]));
        assert!(text(&mut model).contains("There are no flows in here any more."));
        type_in(&mut model, "/gre");
        model.key(Key::Enter);
        assert!(text(&mut model).contains("No flow is like 'gre'."));
    }

    #[test]
    fn pausing_and_keeping_are_shown() {
        let mut model = model();
        model.key(Key::Char('p'));
        model.key(Key::Char(' '));
        let text = text(&mut model, (80, 24));
        assert!(text.contains(" PAUSED · up 12:34"), "{text}");
        assert!(text.contains(" · order kept"), "{text}");
    }

    fn one_flow(flow: Flow) -> Model {
        let mut model = Model::new("test".into());
        let known = Known { flow, ..known(2) };
        model.update(update(1, true, vec![(1, known)]));
        model
    }

    #[test]
    fn what_is_not_ip_says_so_and_ip_in_ip_has_no_number() {
        let mut model = one_flow(Flow {
            inner: Inner::NotIp,
            ..flow(2)
        });
        model.key(Key::Char('3'));
        assert!(text(&mut model, (80, 24)).contains(">vxlan 10002  not IP "));
        let mut model = one_flow(Flow {
            encap: Encap::Ipip,
            vni: 0,
            ..flow(2)
        });
        model.key(Key::Char('2'));
        assert!(text(&mut model, (80, 24)).contains(">ipip  "));
    }

    #[test]
    fn long_addresses_lose_their_middle() {
        let address = |last| {
            format!("2001:db8:1111:2222:3333:4444:5555:{last}")
                .parse()
                .unwrap()
        };
        let mut model = one_flow(Flow {
            outer: Outer::V6(Box::new([address("aaaa"), address("bbbb")])),
            ..flow(2)
        });
        let text = text(&mut model, (80, 24));
        assert!(
            text.contains("\n>2001:db8:11…4:5555:aaaa ↔ 2001:db8:11…44:5555:bbbb "),
            "{text}"
        );
        let text = self::text(&mut model, (140, 24));
        assert!(text.contains(&format!(">{} ↔ {} ", address("aaaa"), address("bbbb"))));
    }

    #[test]
    fn any_size_is_drawn() {
        let mut models = [
            model(),
            Model::new("nothing".into()),
            model(),
            model(),
            model(),
        ];
        models[2].key(Key::Char('?'));
        models[3].key(Key::Char('/'));
        models[4].lost("refused".into());
        with(&mut models[4], |head| {
            head.other = counts(1);
            head.uncounted.malformed = 1;
        });
        for model in &mut models {
            for width in (0..30).chain([59, 60, 79, 200]) {
                for height in 0..30 {
                    drawn(model, LOOK, (width, height));
                }
            }
        }
    }

    #[test]
    fn a_thousand_lines_are_drawn_as_far_as_they_are_visible() {
        let mut model = Model::new("many".into());
        let row = |slot: u32| {
            let inner = Inner::V4 {
                local: [10, 0, 0, 1].into(),
                remote: (0x0a01_0000 + slot).into(),
            };
            let flow = Flow { inner, ..flow(2) };
            (slot, Known { flow, ..known(2) })
        };
        model.update(update(1, true, (0..5000).map(row).collect()));
        model.key(Key::Char('3'));
        let top = text(&mut model, (80, 24));
        assert!(top.contains(" 1-17 of 5000"), "{top}");
        model.key(Key::End);
        let end = text(&mut model, (80, 24));
        assert!(end.contains(" 4984-5000 of 5000"), "{end}");
        assert!(
            end.contains(">vxlan 10002  10.0.0.1 ↔ 10.1.19.135 "),
            "{end}"
        );
    }

    #[test]
    fn the_environment_says_what_a_terminal_can() {
        let look = |variables: &[(&str, &str)]| {
            Look::of(|name| {
                let found = variables.iter().find(|(it, _)| *it == name);
                found.map(|(_, value)| (*value).to_owned())
            })
        };
        assert!(look(&[]).has_colours);
        assert!(look(&[("NO_COLOR", "")]).has_colours);
        assert!(!look(&[("NO_COLOR", "1")]).has_colours);
        assert!(look(&[("LANG", "C.UTF-8")]).has_unicode);
        assert!(!look(&[("LANG", "C.UTF-8"), ("LC_ALL", "C")]).has_unicode);
        assert!(!look(&[]).has_unicode);
    }

    #[test]
    fn ascii_is_enough_and_colours_are_left_out_where_they_are_not_wanted() {
        let plain = Look {
            has_colours: false,
            has_unicode: false,
        };
        let mut model = model();
        model.lost("refused".into());
        model.key(Key::Enter);
        let lines = drawn(&mut model, plain, (80, 24));
        assert!(lines.iter().all(|line| line.is_ascii()), "{lines:#?}");
        for (look, expected) in [
            (plain, false),
            (
                Look {
                    has_colours: true,
                    ..plain
                },
                true,
            ),
        ] {
            let area = Rect::new(0, 0, 80, 24);
            let mut buffer = Buffer::empty(area);
            render(&model, look, area, &mut buffer);
            let is_coloured = |cell: &ratatui::buffer::Cell| cell.fg != Color::Reset;
            assert_eq!(buffer.content().iter().any(is_coloured), expected);
        }
    }

    #[test]
    fn the_help_has_room_at_80_by_24() {
        let mut model = model();
        model.key(Key::Char('?'));
        let text = text(&mut model, (80, 24));
        for (keys, words) in HELP {
            assert!(
                text.contains(keys) && text.contains(words),
                "{keys}: {words}"
            );
        }
        assert!(!text.contains('…'), "{text}");
        assert!(text.ends_with(" any key closes this"));
    }
}
