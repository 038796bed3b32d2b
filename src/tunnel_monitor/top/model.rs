//! What the user looks at, as plain values: keys and news change it, [`super::view`] draws it. Neither
//! knows of a terminal or a clock.

use std::cmp::{Ordering, Reverse};
use std::collections::{HashMap, HashSet};
use std::fmt::{self, Write};
use std::net::IpAddr;
use std::time::Duration;

use super::figures::Unit;
use super::filter::Filter;
use super::keys::Key;
use super::picture::{Known, Picture, Update, sum};
use crate::tunnel_monitor::flow::{Counts, Encap, Flow};
use crate::tunnel_monitor::sample::Sample;

/// A picture is as old as the second that it is about; only what is older has an age.
pub(super) const FRESH: Duration = Duration::from_millis(2500);
/// More is no filter, but something that was pasted.
const LONGEST_FILTER: usize = 120;

/// What a line is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum View {
    /// Ends of tunnels.
    #[default]
    Hosts,
    /// Virtual networks.
    Networks,
    /// Who talks inside.
    Inner,
}

impl View {
    pub(super) const ALL: [View; 3] = [View::Hosts, View::Networks, View::Inner];

    /// In full, and where there is little room.
    pub(super) fn titles(self) -> (&'static str, &'static str) {
        match self {
            View::Hosts => ("host pairs", "hosts"),
            View::Networks => ("VNIs", "VNIs"),
            View::Inner => ("inner pairs", "inner"),
        }
    }
}

/// What the flows of a line have in common. It also says in which order lines of equal figures come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Subject {
    Hosts([IpAddr; 2]),
    Network(u32, Encap),
    Inner(u32, Encap, Option<[IpAddr; 2]>),
}

impl Subject {
    fn of(view: View, flow: &Flow) -> Subject {
        match view {
            View::Hosts => Subject::Hosts(flow.outer()),
            View::Networks => Subject::Network(flow.vni, flow.encap),
            View::Inner => Subject::Inner(flow.vni, flow.encap, flow.inner()),
        }
    }

    fn holds(self, flow: &Flow) -> bool {
        match self {
            Subject::Hosts(outer) => flow.outer() == outer,
            Subject::Network(vni, encap) => (flow.vni, flow.encap) == (vni, encap),
            Subject::Inner(vni, encap, inner) => {
                (flow.vni, flow.encap) == (vni, encap) && flow.inner() == inner
            }
        }
    }

    /// Cells that its name takes, with and without its network.
    fn width(self, is_short: bool) -> usize {
        let ends = |ends: Option<[IpAddr; 2]>| {
            // Or "not IP".
            ends.map_or(6, |ends| {
                3 + ends.map(|end| length(&end)).iter().sum::<usize>()
            })
        };
        let network = |vni: u32, encap: Encap| match encap {
            Encap::Ipip | Encap::Sit => encap.name().len(),
            _ => encap.name().len() + 1 + length(&vni),
        };
        match self {
            Subject::Hosts(outer) => ends(Some(outer)),
            Subject::Network(vni, encap) => network(vni, encap),
            Subject::Inner(_, _, inner) if is_short => ends(inner),
            Subject::Inner(vni, encap, inner) => network(vni, encap) + 2 + ends(inner),
        }
    }

    /// What is inside of it.
    fn inside(self) -> View {
        match self {
            Subject::Hosts(_) => View::Networks,
            Subject::Network(..) => View::Inner,
            // Its ends: the same two may talk over several tunnels.
            Subject::Inner(..) => View::Hosts,
        }
    }
}

/// Of what is written in ASCII.
fn length(value: &impl fmt::Display) -> usize {
    struct Counter(usize);
    impl fmt::Write for Counter {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.0 += text.len();
            Ok(())
        }
    }
    let mut counter = Counter(0);
    // A counter takes whatever is written.
    let _ = write!(counter, "{value}");
    counter.0
}

/// What can be sorted by, in the order of the columns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum Column {
    /// Addresses and numbers.
    Name,
    #[default]
    RxSecond,
    TxSecond,
    RxWindow,
    TxWindow,
    Total,
    Flows,
}

impl Column {
    pub(super) const ALL: [Column; 7] = [
        Column::Name,
        Column::RxSecond,
        Column::TxSecond,
        Column::RxWindow,
        Column::TxWindow,
        Column::Total,
        Column::Flows,
    ];

    fn step(self, by: usize) -> Column {
        let place = Column::ALL.iter().position(|it| *it == self).unwrap_or(0);
        Column::ALL[(place + by) % Column::ALL.len()]
    }
}

/// Flows that have something in common, together.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Line {
    pub key: Subject,
    pub figures: Figures,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Figures {
    pub flows: u64,
    pub second: Counts,
    pub window: Counts,
    pub total: Counts,
}

impl Figures {
    fn add(&mut self, known: &Known) {
        self.flows += 1;
        self.second = sum(self.second, known.second);
        self.window = sum(self.window, known.window);
        self.total = sum(self.total, known.total);
    }

    fn by(&self, column: Column, unit: Unit) -> u64 {
        match column {
            Column::Name => 0,
            Column::RxSecond => unit.of_rate(self.second).0,
            Column::TxSecond => unit.of_rate(self.second).1,
            Column::RxWindow => unit.of_rate(self.window).0,
            Column::TxWindow => unit.of_rate(self.window).1,
            Column::Total => unit.of_amount(self.total),
            Column::Flows => self.flows,
        }
    }
}

/// Where somebody came from.
#[derive(Clone, Debug)]
struct Step {
    view: View,
    chosen: Subject,
}

/// What is typed into.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Prompt {
    pub text: String,
    pub error: Option<String>,
}

/// What the loop is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Nothing,
    Quit,
    /// Stop as a job of the shell.
    Suspend,
    /// Draw all of it anew.
    Redraw,
}

/// The state of the view.
#[derive(Clone, Debug)]
pub(super) struct Model {
    /// Where the figures come from.
    pub source: String,
    /// `None`: nothing came yet.
    pub shown: Option<Picture>,
    /// What came while the picture stands still.
    waiting: Option<Picture>,
    pub is_paused: bool,
    /// Since the last news.
    pub age: Duration,
    /// Why there is no answer.
    pub trouble: Option<String>,
    pub view: View,
    path: Vec<Step>,
    pub column: Column,
    pub is_reversed: bool,
    /// Lines stay where they are, and new ones come last.
    pub is_order_kept: bool,
    pub unit: Unit,
    pub filter: Option<Filter>,
    /// The filter that is being typed.
    pub prompt: Option<Prompt>,
    pub is_help_open: bool,
    lines: Vec<Line>,
    /// Cells that the longest name takes.
    longest: usize,
    /// Of all lines.
    pub all: Figures,
    /// Of lines that each view has, in the order of [`View::ALL`].
    pub numbers: [usize; 3],
    chosen: usize,
    /// First line that is visible.
    top: usize,
    /// Lines that have room: the view says so.
    room: usize,
}

impl Model {
    pub(super) fn new(source: String) -> Model {
        Model {
            source,
            shown: None,
            waiting: None,
            is_paused: false,
            age: Duration::ZERO,
            trouble: None,
            view: View::default(),
            path: Vec::new(),
            column: Column::default(),
            is_reversed: false,
            is_order_kept: false,
            unit: Unit::default(),
            filter: None,
            prompt: None,
            is_help_open: false,
            lines: Vec::new(),
            longest: 0,
            all: Figures::default(),
            numbers: [0; 3],
            chosen: 0,
            top: 0,
            room: 1,
        }
    }

    /// News of another process.
    pub(super) fn update(&mut self, update: Update) {
        self.news();
        let held = if self.is_paused {
            let shown = self.shown.as_ref();
            self.waiting
                .get_or_insert_with(|| shown.cloned().unwrap_or_default())
        } else {
            self.shown.get_or_insert_default()
        };
        held.apply(update);
        self.recount_unless_paused();
    }

    /// News of this process.
    pub(super) fn sample(&mut self, sample: &Sample) {
        self.news();
        let held = if self.is_paused {
            &mut self.waiting
        } else {
            &mut self.shown
        };
        *held = Some(Picture::of(sample));
        self.recount_unless_paused();
    }

    fn news(&mut self) {
        self.trouble = None;
        self.age = Duration::ZERO;
    }

    fn recount_unless_paused(&mut self) {
        if !self.is_paused {
            self.recount();
        }
    }

    /// There is no answer; the picture stays.
    pub(super) fn lost(&mut self, reason: String) {
        self.trouble = Some(reason);
    }

    /// Cells that the longest name of all lines takes.
    pub(super) fn longest(&self) -> usize {
        self.longest
    }

    /// All lines, in their order.
    #[cfg(test)]
    pub(super) fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// The lines that have room, and where the chosen one is among them.
    pub(super) fn visible(&self) -> (&[Line], usize) {
        let end = (self.top + self.room).min(self.lines.len());
        let lines = self.lines.get(self.top..end).unwrap_or_default();
        (lines, self.chosen.saturating_sub(self.top))
    }

    /// The number of lines, and the places of the first and the last visible one.
    pub(super) fn extent(&self) -> (usize, usize, usize) {
        let end = (self.top + self.room).min(self.lines.len());
        (self.lines.len(), self.top.min(end), end)
    }

    /// What was opened, from the outside in.
    pub(super) fn path(&self) -> impl Iterator<Item = Subject> {
        self.path.iter().map(|step| step.chosen)
    }

    /// Whether all lines are of one network, so that they need not say of which.
    pub(super) fn is_in_network(&self) -> bool {
        self.path().any(|key| !matches!(key, Subject::Hosts(_)))
    }

    /// So many lines have room now.
    pub(super) fn set_room(&mut self, room: usize) {
        self.room = room.max(1);
        self.scroll();
    }

    pub(super) fn key(&mut self, key: Key) -> Wish {
        match key {
            Key::Control('c') => return Wish::Quit,
            Key::Control('z') => return Wish::Suspend,
            Key::Control('l') => return Wish::Redraw,
            _ => {}
        }
        if self.is_help_open {
            self.is_help_open = false;
            return if key == Key::Char('q') {
                Wish::Quit
            } else {
                Wish::Nothing
            };
        }
        if self.prompt.is_some() {
            self.type_filter(key);
            return Wish::Nothing;
        }
        match key {
            Key::Char('q') => return Wish::Quit,
            Key::Char('?' | 'h') => self.is_help_open = true,
            Key::Tab => self.turn(1),
            Key::BackTab => self.turn(2),
            Key::Char('1') => self.look_at(View::Hosts),
            Key::Char('2') => self.look_at(View::Networks),
            Key::Char('3') => self.look_at(View::Inner),
            Key::Up | Key::Char('k') => self.choose(self.chosen.saturating_sub(1)),
            Key::Down | Key::Char('j') => self.choose(self.chosen + 1),
            Key::PageUp | Key::Control('b') => self.choose(self.chosen.saturating_sub(self.room)),
            Key::PageDown | Key::Control('f') => self.choose(self.chosen + self.room),
            Key::Home | Key::Char('g') => self.choose(0),
            Key::End | Key::Char('G') => self.choose(usize::MAX),
            Key::Enter | Key::Right => self.open(),
            Key::Backspace | Key::Left => self.back(),
            Key::Escape => self.escape(),
            Key::Char('>' | '.' | 's') => self.sort_by(self.column.step(1)),
            Key::Char('<' | ',' | 'S') => self.sort_by(self.column.step(Column::ALL.len() - 1)),
            Key::Char('r') => {
                self.is_reversed = !self.is_reversed;
                self.sort_anew();
            }
            Key::Char(' ') => {
                self.is_order_kept = !self.is_order_kept;
                self.recount();
            }
            Key::Char('u') => {
                self.unit = self.unit.next();
                self.sort_anew();
            }
            Key::Char('p') => self.pause(),
            Key::Char('/') => {
                let text = self.filter.as_ref().map(|it| it.text().to_owned());
                self.prompt = Some(Prompt {
                    text: text.unwrap_or_default(),
                    error: None,
                });
            }
            _ => {}
        }
        Wish::Nothing
    }

    fn type_filter(&mut self, key: Key) {
        let Some(prompt) = &mut self.prompt else {
            return;
        };
        prompt.error = None;
        match key {
            Key::Char(it) if prompt.text.len() < LONGEST_FILTER => prompt.text.push(it),
            Key::Backspace if prompt.text.pop().is_none() => self.prompt = None,
            Key::Control('u') => prompt.text.clear(),
            Key::Escape => self.prompt = None,
            Key::Enter => match prompt.text.parse::<Filter>() {
                Ok(filter) => {
                    self.filter = Some(filter).filter(|it| !it.text().is_empty());
                    self.prompt = None;
                    self.start_over();
                }
                Err(error) => prompt.error = Some(error),
            },
            _ => {}
        }
    }

    fn turn(&mut self, by: usize) {
        let place = View::ALL.iter().position(|it| *it == self.view);
        self.look_at(View::ALL[(place.unwrap_or(0) + by) % View::ALL.len()]);
    }

    fn look_at(&mut self, view: View) {
        if self.view != view {
            self.view = view;
            self.start_over();
        }
    }

    /// Other lines: from the first one on.
    fn start_over(&mut self) {
        self.lines.clear();
        (self.chosen, self.top) = (0, 0);
        self.recount();
    }

    fn open(&mut self) {
        let Some(line) = self.lines.get(self.chosen) else {
            return;
        };
        let chosen = line.key;
        if self.path().any(|key| key == chosen) {
            // There is no further inside than itself.
            return;
        }
        self.path.push(Step {
            view: self.view,
            chosen,
        });
        // Where this was gone through already there is another side of it.
        let been = |view| self.path.iter().any(|step| step.view == view);
        let mut inside = chosen.inside();
        if been(inside)
            && let Some(other) = View::ALL.into_iter().find(|view| !been(*view))
        {
            inside = other;
        }
        self.view = inside;
        self.start_over();
    }

    fn back(&mut self) {
        let Some(step) = self.path.pop() else {
            return;
        };
        self.view = step.view;
        self.start_over();
        if let Some(place) = self.lines.iter().position(|line| line.key == step.chosen) {
            self.choose(place);
        }
    }

    /// Undoes what was chosen last: the way in, then the filter.
    fn escape(&mut self) {
        if !self.path.is_empty() {
            self.back();
        } else if self.filter.take().is_some() {
            self.start_over();
        }
    }

    fn pause(&mut self) {
        self.is_paused = !self.is_paused;
        if !self.is_paused
            && let Some(waiting) = self.waiting.take()
        {
            self.shown = Some(waiting);
            self.recount();
        }
    }

    fn sort_by(&mut self, column: Column) {
        self.column = column;
        self.sort_anew();
    }

    /// By another order than before: whether lines are kept in their places or not.
    fn sort_anew(&mut self) {
        let kept = std::mem::take(&mut self.is_order_kept);
        self.recount();
        self.is_order_kept = kept;
    }

    fn choose(&mut self, place: usize) {
        self.chosen = place.min(self.lines.len().saturating_sub(1));
        self.scroll();
    }

    /// Keeps the chosen line visible, and no room empty.
    fn scroll(&mut self) {
        self.chosen = self.chosen.min(self.lines.len().saturating_sub(1));
        self.top = self.top.min(self.chosen);
        self.top = self.top.max((self.chosen + 1).saturating_sub(self.room));
        self.top = self.top.min(self.lines.len().saturating_sub(self.room));
    }

    /// Makes the lines of what is known. The chosen line stays chosen wherever it comes to be, but the
    /// first one is a place: who looks at the top wants to see who gets there.
    fn recount(&mut self) {
        let Some(picture) = &self.shown else {
            return;
        };
        let view = self.view;
        let mut sums: HashMap<Subject, Figures> = HashMap::new();
        let mut all = Figures::default();
        let mut seen = [HashSet::new(), HashSet::new(), HashSet::new()];
        for known in picture.flows() {
            let flow = &known.flow;
            let is_meant = self.path.iter().all(|step| step.chosen.holds(flow))
                && self.filter.as_ref().is_none_or(|it| it.lets_through(flow));
            if is_meant {
                sums.entry(Subject::of(view, flow)).or_default().add(known);
                all.add(known);
                for (view, seen) in View::ALL.into_iter().zip(&mut seen) {
                    seen.insert(Subject::of(view, flow));
                }
            }
        }
        self.all = all;
        self.numbers = seen.map(|seen| seen.len());
        let chosen = self.lines.get(self.chosen).map(|line| line.key);
        let is_at_top = self.chosen == 0;
        self.arrange(sums);
        let is_short = self.is_in_network();
        let widths = self.lines.iter().map(|line| line.key.width(is_short));
        self.longest = widths.max().unwrap_or(0);
        if let Some(chosen) = chosen
            && !is_at_top
            && let Some(place) = self.lines.iter().position(|line| line.key == chosen)
        {
            self.chosen = place;
        }
        self.scroll();
    }

    fn arrange(&mut self, mut sums: HashMap<Subject, Figures>) {
        let mut lines = Vec::with_capacity(sums.len());
        if self.is_order_kept {
            for line in &self.lines {
                // Who is gone is gone; who is silent has a place still.
                if let Some(figures) = sums.remove(&line.key) {
                    lines.push(Line {
                        key: line.key,
                        figures,
                    });
                }
            }
        }
        let mut rest: Vec<Line> = sums
            .into_iter()
            .map(|(key, figures)| Line { key, figures })
            .collect();
        rest.sort_unstable_by(|one, other| self.compare(one, other));
        lines.append(&mut rest);
        self.lines = lines;
    }

    /// The largest first, but names from A on. Equal figures are in the order of names, so that nothing
    /// jumps.
    fn compare(&self, one: &Line, other: &Line) -> Ordering {
        let figures = |line: &Line| Reverse(line.figures.by(self.column, self.unit));
        let by_column = if self.column == Column::Name {
            one.key.cmp(&other.key)
        } else {
            figures(one).cmp(&figures(other))
        };
        let by_column = if self.is_reversed {
            by_column.reverse()
        } else {
            by_column
        };
        by_column.then_with(|| one.key.cmp(&other.key))
    }

    /// Whether there are flows, of which none is meant.
    pub(super) fn hides_all(&self) -> bool {
        let is_known = |picture: &Picture| picture.flows().next().is_some();
        self.lines.is_empty() && self.shown.as_ref().is_some_and(is_known)
    }
}

#[cfg(test)]
mod tests {
    use super::super::examples::{counts, known, update};
    use super::*;
    use proptest::prelude::*;

    /// Hosts 2 to 13 over four networks; the higher, the more traffic.
    fn model() -> Model {
        let mut model = Model::new("test".into());
        model.update(snapshot(1, |host| u64::from(host) * 100));
        model
    }

    fn snapshot(number: u64, traffic: impl Fn(u8) -> u64) -> Update {
        let row = |host: u8| {
            let known = Known {
                second: counts(traffic(host)),
                window: counts(5 * traffic(host)),
                total: counts(50 * traffic(host)),
                ..known(host)
            };
            (u32::from(host), known)
        };
        update(number, true, (2..14).map(row).collect())
    }

    fn press(model: &mut Model, keys: &str) {
        for key in keys.chars() {
            let key = match key {
                '\n' => Key::Enter,
                '\t' => Key::Tab,
                '\u{1b}' => Key::Escape,
                '\u{7f}' => Key::Backspace,
                key => Key::Char(key),
            };
            assert_eq!(model.key(key), Wish::Nothing, "{key:?}");
        }
    }

    /// The last bytes of the remote ends, or the numbers of networks, in the order of lines.
    fn order(model: &Model) -> Vec<u32> {
        let last = |address: &IpAddr| match address {
            IpAddr::V4(address) => u32::from(address.octets()[3]),
            IpAddr::V6(_) => panic!("there is no IPv6 in this test"),
        };
        let number = |line: &Line| match &line.key {
            Subject::Hosts([_, remote]) => last(remote),
            Subject::Network(vni, _) => *vni,
            Subject::Inner(_, _, ends) => last(&ends.unwrap()[1]),
        };
        model.lines().iter().map(number).collect()
    }

    fn chosen(model: &Model) -> u32 {
        order(model)[model.chosen]
    }

    #[test]
    fn lines_are_sums_of_flows() {
        let mut model = model();
        assert_eq!(order(&model), Vec::from_iter((2..14).rev()));
        assert_eq!(model.numbers, [12, 4, 12]);
        press(&mut model, "2");
        // Network 10001 has the hosts 5, 9 and 13.
        assert_eq!(order(&model), [10_001, 10_000, 10_003, 10_002]);
        let figures = model.lines()[0].figures;
        assert_eq!(figures.second, counts(2700));
        assert_eq!(figures.window, counts(5 * 2700));
        assert_eq!(figures.flows, 3);
        let all: u64 = model
            .lines()
            .iter()
            .map(|it| it.figures.second.rx_pkts)
            .sum();
        assert_eq!(model.all.second, counts(all));
    }

    #[test]
    fn views_follow_upon_each_other() {
        let mut model = model();
        for view in [View::Networks, View::Inner, View::Hosts] {
            press(&mut model, "\t");
            assert_eq!(model.view, view);
        }
        model.key(Key::BackTab);
        assert_eq!(model.view, View::Inner);
        press(&mut model, "1");
        assert_eq!(model.view, View::Hosts);
    }

    #[test]
    fn one_looks_into_a_line_and_comes_back_to_it() {
        let mut model = model();
        press(&mut model, "jj");
        assert_eq!(chosen(&model), 11);
        press(&mut model, "\n");
        assert_eq!((model.view, order(&model)), (View::Networks, vec![10_003]));
        press(&mut model, "\n");
        assert_eq!((model.view, order(&model)), (View::Inner, vec![11]));
        assert!(model.is_in_network());
        // The innermost: there is nothing more to open but the same.
        press(&mut model, "\n\n\n\n");
        assert_eq!(order(&model).len(), 1);
        while model.path().next().is_some() {
            press(&mut model, "\u{7f}");
        }
        assert_eq!((model.view, chosen(&model)), (View::Hosts, 11));
        press(&mut model, "\u{7f}\u{1b}");
        assert_eq!(model.view, View::Hosts);
    }

    #[test]
    fn what_was_opened_stays_open_when_it_goes_quiet() {
        let mut model = model();
        press(&mut model, "\n");
        assert_eq!(order(&model), [10_001]);
        model.update(update(2, false, Vec::new()));
        assert_eq!(order(&model), [10_001]);
        assert!(model.lines()[0].figures.second.is_zero());
        model.update(update(3, true, vec![(1, known(2))]));
        assert!(order(&model).is_empty());
        assert!(model.hides_all());
        model.update(snapshot(4, |_| 1));
        assert_eq!(order(&model), [10_001]);
    }

    #[test]
    fn any_column_sorts_either_way() {
        let mut model = model();
        model.update(snapshot(2, |host| u64::from(host % 5)));
        for _ in Column::ALL {
            press(&mut model, "s");
            let by = |line: &Line| line.figures.by(model.column, model.unit);
            let figures: Vec<u64> = model.lines().iter().map(by).collect();
            assert!(
                figures.is_sorted_by(|one, other| one >= other),
                "{figures:?}"
            );
        }
        assert_eq!(model.column, Column::RxSecond);
        press(&mut model, "<");
        assert_eq!(order(&model), Vec::from_iter(2..14));
        press(&mut model, "r");
        assert_eq!(order(&model), Vec::from_iter((2..14).rev()));
        press(&mut model, ">S>");
        assert_eq!(model.column, Column::RxSecond);
    }

    #[test]
    fn equal_lines_do_not_jump() {
        let mut model = model();
        for number in 2..20 {
            model.update(snapshot(number, |_| 7));
            assert_eq!(order(&model), Vec::from_iter(2..14));
        }
        press(&mut model, "r");
        assert_eq!(order(&model), Vec::from_iter(2..14));
    }

    #[test]
    fn lines_stay_in_their_places_where_the_user_wants_it() {
        let mut model = model();
        press(&mut model, " ");
        model.update(snapshot(2, |host| 100 - u64::from(host)));
        assert_eq!(order(&model), Vec::from_iter((2..14).rev()));
        // Who comes new comes last; who is gone leaves no gap.
        let mut more = snapshot(3, |host| 100 - u64::from(host));
        more.rows.retain(|(slot, _)| *slot != 9);
        more.rows.push((99, known(77)));
        model.update(more);
        let expected = (2..14).rev().filter(|host| *host != 9).chain([77]);
        assert_eq!(order(&model), Vec::from_iter(expected));
        // Another order is a new order, and then it stays.
        press(&mut model, "r");
        assert_eq!(order(&model).first(), Some(&77));
        press(&mut model, "r ");
        assert_eq!(order(&model)[..2], [2, 3]);
    }

    #[test]
    fn the_chosen_line_is_followed_but_not_the_first() {
        let mut model = model();
        press(&mut model, "jjj");
        assert_eq!(chosen(&model), 10);
        model.update(snapshot(2, |host| 100 - u64::from(host)));
        assert_eq!((chosen(&model), model.chosen), (10, 8));
        press(&mut model, "g");
        model.update(snapshot(3, u64::from));
        assert_eq!(chosen(&model), 13);
    }

    #[test]
    fn the_chosen_line_is_visible() {
        let mut model = model();
        model.set_room(5);
        let visible = |model: &Model| {
            let (lines, place) = model.visible();
            assert_eq!(lines.len(), 5);
            assert_eq!(lines[place], model.lines()[model.chosen]);
            model.extent()
        };
        assert_eq!(visible(&model), (12, 0, 5));
        press(&mut model, "jjjjj");
        assert_eq!(visible(&model), (12, 1, 6));
        model.key(Key::PageDown);
        assert_eq!(visible(&model), (12, 6, 11));
        model.key(Key::End);
        assert_eq!(visible(&model), (12, 7, 12));
        model.key(Key::Down);
        model.key(Key::PageUp);
        assert_eq!(visible(&model), (12, 6, 11));
        model.key(Key::Home);
        assert_eq!(visible(&model), (12, 0, 5));
        model.key(Key::End);
        model.set_room(100);
        assert_eq!(model.extent(), (12, 0, 12));
    }

    #[test]
    fn a_filter_is_typed_and_cleared() {
        let mut model = model();
        press(&mut model, "/172.16.0.5");
        // Letters are no commands here.
        assert_eq!(model.prompt.as_ref().unwrap().text, "172.16.0.5");
        assert_eq!(order(&model).len(), 12);
        press(&mut model, "\n");
        assert_eq!(order(&model), [5]);
        assert_eq!(model.numbers, [1, 1, 1]);
        press(&mut model, "/\u{7f}6\n");
        assert_eq!(order(&model), [6]);
        press(&mut model, "/q");
        press(&mut model, "\u{1b}");
        assert_eq!(order(&model), [6]);
        press(&mut model, "\u{1b}");
        assert_eq!(order(&model).len(), 12);
        press(&mut model, "/nonsense\n");
        let error = model.prompt.as_ref().unwrap().error.as_ref().unwrap();
        assert!(error.contains("'nonsense' is no IP"), "{error}");
        press(&mut model, "x");
        assert_eq!(model.prompt.as_ref().unwrap().error, None);
        model.key(Key::Control('u'));
        press(&mut model, "gre\n");
        assert!(order(&model).is_empty());
        assert!(model.hides_all());
        model.key(Key::Control('u'));
        press(&mut model, "/");
        model.key(Key::Control('u'));
        press(&mut model, "\n");
        assert_eq!(model.filter, None);
    }

    #[test]
    fn a_paused_picture_stands_still_and_nothing_is_lost() {
        let mut model = model();
        press(&mut model, "p");
        model.update(snapshot(2, |_| 1));
        model.update(update(3, false, Vec::new()));
        assert_eq!(model.shown.as_ref().unwrap().head.number, 1);
        assert_eq!(model.all.second.rx_pkts, (2..14).sum::<u64>() * 100);
        // One may look around in it.
        press(&mut model, "2");
        assert_eq!(order(&model).len(), 4);
        press(&mut model, "p");
        assert_eq!(model.shown.as_ref().unwrap().head.number, 3);
        assert_eq!(model.all.total, counts(12 * 50));
        assert!(model.all.second.is_zero());
    }

    #[test]
    fn a_delta_while_paused_follows_upon_what_is_shown() {
        let mut model = model();
        press(&mut model, "p");
        model.update(update(2, false, Vec::new()));
        press(&mut model, "p");
        assert_eq!(order(&model).len(), 12);
        assert!(model.all.second.is_zero());
    }

    #[test]
    fn without_an_answer_the_picture_stays() {
        let mut model = model();
        model.lost("refused".into());
        assert_eq!(order(&model).len(), 12);
        assert_eq!(model.trouble.as_deref(), Some("refused"));
        model.update(snapshot(1, |_| 1));
        assert_eq!(model.trouble, None);
    }

    #[test]
    fn the_ends_of_it() {
        let mut model = model();
        assert_eq!(model.key(Key::Char('q')), Wish::Quit);
        assert_eq!(model.key(Key::Control('c')), Wish::Quit);
        assert_eq!(model.key(Key::Control('z')), Wish::Suspend);
        assert_eq!(model.key(Key::Control('l')), Wish::Redraw);
        press(&mut model, "/");
        assert_eq!(model.key(Key::Control('c')), Wish::Quit);
        press(&mut model, "\u{1b}?x");
        assert!(!model.is_help_open);
        press(&mut model, "?");
        assert_eq!(model.key(Key::Char('q')), Wish::Quit);
    }

    proptest! {
        #[test]
        fn no_keys_lead_out_of_the_table(
            keys in prop::collection::vec(0_usize..20, 0..60),
            rooms in prop::collection::vec(0_usize..20, 60),
        ) {
            let all = [
                Key::Enter, Key::Escape, Key::Backspace, Key::Tab, Key::BackTab, Key::Up, Key::Down,
                Key::Home, Key::End, Key::PageUp, Key::PageDown, Key::Char('s'), Key::Char('S'),
                Key::Char('r'), Key::Char(' '), Key::Char('u'), Key::Char('p'), Key::Char('/'),
                Key::Char('1'), Key::Char('3'),
            ];
            let mut model = Model::new("test".into());
            for (number, (key, room)) in keys.into_iter().zip(rooms).enumerate() {
                model.key(all[key]);
                model.set_room(room);
                if room % 3 == 0 {
                    model.update(snapshot(number as u64, |host| u64::from(host) % (room as u64 + 1)));
                }
                let (lines, place) = model.visible();
                prop_assert!(lines.is_empty() || place < lines.len());
                prop_assert_eq!(lines.is_empty(), model.lines().is_empty());
            }
        }
    }
}
