//! A change of pace for flows that are known.

use anyhow::Result;

use super::maps::Maps;
use super::skeleton::types;
use super::word::Reader;

/// Every flow keeps its tokens, or bytes: those of a slow rate are not waited for at a fast one. `words`
/// are those from before the change: what the new rule has judged since goes by its pace already, and
/// stretched once more it would be shut out, for years at the worst. Such a flow may have lost tokens.
pub(super) fn stretch(
    maps: &Maps,
    words: &[u64],
    new: &types::rule,
    old: &types::rule,
) -> Result<()> {
    let (pace, old_pace) = (new.pace(), old.pace());
    if pace == old_pace {
        return Ok(());
    }
    let reader = Reader::now(maps)?;
    let exchange = |cell, word| {
        let stretched = reader.at_pace(word, pace, old_pace);
        word != 0 && maps.cells.exchange(cell, word, stretched)
    };
    for (cell, word) in (0..).zip(words) {
        if exchange(cell, *word) || pace > old_pace {
            continue;
        }
        // Judged by the old rule after we looked: it waits for longer than the new one ever lets it.
        let word = maps.cells.word(cell);
        if reader.waits_longer(word, new.longest_wait()) {
            exchange(cell, word);
        }
    }
    Ok(())
}
