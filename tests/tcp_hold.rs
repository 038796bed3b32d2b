//! Held connections, with a peer across a cable, in a network namespace of his own: what he is told to have
//! arrived, as his own kernel says, is what was confirmed, and never more.
//!
//! What holds of every hold, and the tests that fail where it is broken. Each was seen to fail, with this done to
//! src/bpf/tcp_hold.bpf.c, or to the file of src/tcp_hold that is named:
//!
//! | rule | broken by | test |
//! | --- | --- | --- |
//! | 1. never beyond what is confirmed | `allowed` returns `own` | `only_what_is_confirmed_is_acknowledged` |
//! | never back | `allowed` without `promised` | `a_connection_at_work_is_held_from_now_on` |
//! | | `hold->promised` not written | `what_is_no_longer_confirmed_stays_held` |
//! | | holder.rs: `promised` begins at what was read | `a_connection_at_work_is_held_from_now_on` |
//! | in numbers that begin again | `move_ack` leaves alone what would be a larger number | `sequence_numbers_begin_again` |
//! | 2. none is dropped | a lowered one without data is | `nothing_but_the_acknowledgement_changes` |
//! | 3. a probe that was asked for leaves as an acknowledgement | its number stays | `only_what_is_confirmed_is_acknowledged` |
//! | and no other does | without `is_probe_wanted` | `who_is_asked_whether_he_is_there_answers` |
//! | 4. bounds in bytes | `>` is `>=`, or never | `more_than_the_bound_is_released`, `…_is_kept_and_said` |
//! | they release only where they are to | always, or never | the same |
//! | to the end | `leavers` keeps whom a bound has released | `what_is_released_at_its_bound_is_so_to_the_end` |
//! | 5. bounds in time | never | `what_is_held_for_too_long_is_released` |
//! | 6. a FIN goes with the last byte before it | `own_end` is 0 | `a_fin_waits_for_what_is_before_it` |
//! | and not earlier | `confirmed + 2` | `a_fin_waits_for_what_is_before_it`, `who_leaves_first_holds_back_still` |
//! | in each state | no CLOSING, no LAST_ACK in `has_fin` | `both_leave_at_once_with_all_confirmed`, `who_leaves_last_acknowledges_all_with_his_own_fin` |
//! | without a socket (TIME-WAIT) | `hold_leaver` passes all on | `who_leaves_first_holds_back_still` |
//! | | no CLOSING in `is_leaving` | `both_leave_at_once` |
//! | | no room in `leavers` is no failure | `without_room_a_fin_does_not_leave` |
//! | with any numbers | `own` is `ack - start`, in 64 bits or in 32 | `who_leaves_first_holds_back_with_any_numbers` |
//! | and it is known | `has_ended` is not set | `who_leaves_first_holds_back_still` |
//! | 7. options and windows stay as they are | the words behind the timestamps of a lowered one are NOPs; its window is widened | `nothing_but_the_acknowledgement_changes` |
//! | 8. forced only where one is due | held.rs: `announce` does not ask | `only_what_is_confirmed_is_acknowledged` |
//! | never TCP_REPAIR_ON | connection.rs: ON before OFF | `announcing_disturbs_nobody` |
//! | SO_REUSEADDR, SO_LINGER as before | connection.rs, held.rs: not set again | `who_is_released_is_as_before` |
//! | 9. checksums stay right, due or made | a store without `bpf_l4_csum_replace`, also with BPF_F_RECOMPUTE_CSUM; the replacement with BPF_F_PSEUDO_HDR | `every_checksum_is_right` |
//! | what passes through is not ours | `ingress_ifindex` not asked for | `what_passes_through_is_left_alone` |
//! | 10. a hold is its connection's | `account_of` without the generation | `what_is_no_longer_confirmed_stays_held`, `who_leaves_first_and_dies_holds_back_still` |
//! | | accounts.rs: `end` leaves the generation | `what_is_no_longer_confirmed_can_be_held_again` |
//! | | without BPF_F_CLONE | `what_comes_before_it_is_accepted_waits_too` |
//! | | `hold_leaver` does not compare `end` | `the_next_one_between_the_same_ends_need_not_be_held` |
//! | 11. death acknowledges nothing | connection.rs: no SO_LINGER | `whoever_goes_with_unconfirmed_bytes_resets_the_connection` |
//! | the guard stays as long as anything is held | guard.rs: without `sockets_in`, or not at all | tests/tcp_hold_guard.rs: `what_was_passed_on_stays_held`, `without_its_holder_a_socket_stays_held` |
//! | | guard.rs: without `has_leavers` | `what_is_acknowledged_without_a_socket_stays_held` |
//! | and no longer | `leavers` keeps whom nothing is held of | `both_leave_at_once_with_all_confirmed` |
//! | | standing.rs: `hand_over` is left out | `one_guard_stands_at_all_links` |
//! | it has no socket of the application's | guard.rs: without `close_all_but` | `the_guard_has_none_of_the_applications_sockets` |
//! | 12. a socket that was passed on is closed | agent/client.rs: `close` keeps it | tests/tcp_hold_agent.rs: `every_verb_does_what_the_document_says` |
//! | at the end of its application | agent/client.rs: the sockets of one that has gone are kept | `the_example_loses_nothing_and_doubles_nothing` |
//! | of this namespace only | agent/client.rs: `check_namespace` agrees | `what_is_not_in_the_document_is_refused` |
//! | no more is confirmed than was read | agent/client.rs: `confirm` does not ask | `every_verb_does_what_the_document_says` |

#[path = "tcp_hold/bench.rs"]
mod bench;
#[path = "tcp_hold/bounds.rs"]
mod bounds;
mod held_peer;
#[path = "tcp_hold/holding.rs"]
mod holding;
#[path = "tcp_hold/leaving.rs"]
mod leaving;
#[path = "tcp_hold/repaired.rs"]
mod repaired;
#[path = "tcp_hold/wire.rs"]
mod wire;
