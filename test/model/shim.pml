/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The life of a container's processes in the shim, and what it tells the daemon about them.
 *
 * Process 0 is init, the others are execs. The environment (clients, the OCI runtime, the kernel) does what
 * it likes in any order; the shim's rules decide what is published. Each rule has the name of the function
 * in src/shim that implements it.
 *
 * Checked by assertion, in every interleaving:
 *     no exit before its start
 *     an exec's exit before init's, and nothing of an exec after init's
 *     at most one exit for every process
 * and as a property of every fair run (ltl init_exit_always_published):
 *     once init has ended, its exit is published
 *
 * HOST_PIDS: the container has no pid namespace of its own, so the kernel does not end execs with init.
 *
 * BREAK_START, BREAK_ORDER, BREAK_LOST and (with HOST_PIDS) BREAK_REFUSE, BREAK_KILL and BREAK_LATE leave a rule
 * out; the test sees to it that each is missed.
 *
 * Left out: the shim's own death, checkpoints, and the ten seconds after which init's end is told although an
 * exec lives on, which only a process that SIGKILL does not end can bring about.
 */
#define N 3 /* init and two execs */

mtype = { CREATED, RUNNING, STOPPED }; /* enum process_state, as far as events depend on it */

mtype state[N] = CREATED;
bool known[N];        /* the shim has it: init from Create, an exec from Exec */
bool is_launching[N]; /* the runtime works on it: struct process.is_launching */
bool alive[N];        /* the kernel has a process */
bool is_dead[N];      /* it had one, which has ended: the pidfd is readable */
bool is_created;      /* the container: init waits to be started, or is past that */
bool rest_killed;     /* container_init_ended() has been there */
bool stays[N];        /* it does not end by itself */
bool has_ended[N];    /* the shim has looked at the pidfd: struct process.has_ended */
bool start_failed[N];
bool start_published[N];
bool exit_published[N];

inline ends_all_execs()
{
    byte k = 1;
    do
    :: k < N ->
        if
        :: alive[k] -> alive[k] = false; is_dead[k] = true
        :: else
        fi;
        k++
    :: else -> break
    od
}

/* The kernel ends everything in the pid namespace with its init. */
inline kernel_ends(i)
{
    alive[i] = false;
    is_dead[i] = true
#ifndef HOST_PIDS
    ;
    if
    :: i == 0 -> ends_all_execs()
    :: else
    fi
#endif
}

/* The runtime looks whether init is alive; what has no need of its namespace gets by all the same. */
#ifdef HOST_PIDS
#define can_exec true
#else
#define can_exec alive[0]
#endif

/* on_exec_launched(): one that came into being after the rest was killed. */
inline end_late(i)
{
#if defined(HOST_PIDS) && !defined(BREAK_LATE)
    if
    :: i > 0 && alive[i] && has_ended[0] -> alive[i] = false; is_dead[i] = true
    :: else
    fi
#else
    skip
#endif
}

inline publish_start(i)
{
    assert(!exit_published[i]);
    assert(!start_published[i]);
    assert(!exit_published[0]);
    start_published[i] = true
}

inline publish_exit(i)
{
    assert(!exit_published[i]);
    assert(start_published[i] || i == 0); /* an init that ended before its start has an exit all the same */
    if
    :: i == 0 ->
        byte x = 1;
        do
        :: x < N -> assert(!start_published[x] || exit_published[x]); x++
        :: else -> break
        od
    :: else
    fi;
    exit_published[i] = true;
    state[i] = STOPPED
}

/* container_init_ended(): without a namespace of its own what is left of the container is killed by its group. */
inline kill_rest(i)
{
#if defined(HOST_PIDS) && !defined(BREAK_KILL)
    if
    :: i == 0 && has_ended[0] && !is_launching[0] && !rest_killed -> ends_all_execs(); rest_killed = true
    :: else
    fi
#else
    skip
#endif
}

/* process_tell_end(): told only when nothing has to be told before it. */
inline try_publish(i)
{
    kill_rest(i);
    bool hold = !known[i] || !has_ended[i] || exit_published[i];
#ifndef BREAK_START
    hold = hold || is_launching[i];
#endif
    if
#ifndef BREAK_ORDER
    :: i == 0 ->
        byte q = 1;
        do
        :: q < N ->
            /* An exec that runs, or is being launched, has its end to tell first. */
            hold = hold || is_launching[q] || (state[q] == RUNNING && !exit_published[q]);
            q++
        :: else -> break
        od
#endif
    :: i > 0 -> hold = hold || (!start_published[i] && !is_launching[i])
    :: else
    fi;
    if
#ifdef BREAK_LOST
    :: !hold && i > 0 -> publish_exit(i)
#else
    :: !hold -> publish_exit(i)
#endif
    :: else
    fi
}

/* The loop comes back to what was held: process_tell_end() of every exec, then of init. */
inline settle()
{
    byte s = N;
    do
    :: s > 0 -> s--;
        /* execs first */
        try_publish(s)
    :: else -> break
    od
}

active proctype kernel()
{
    byte i;
    do
    :: atomic { alive[0] -> i = 0; kernel_ends(i) }
    :: atomic { alive[1] && !stays[1] -> i = 1; kernel_ends(i) }
    :: atomic { alive[2] && !stays[2] -> i = 2; kernel_ends(i) }
    od
}

/* Clients and the runtime. A launch is two steps of the loop, between which anything may happen. */
proctype process(byte i)
{
    /* Create of init, Exec of an exec: no exec once init has ended. */
    atomic { (i == 0 || (known[0] && state[0] != STOPPED && !has_ended[0])); known[i] = true };
    if
    :: i == 0 -> atomic { alive[0] = true; is_created = true } /* `create` leaves the container's init waiting */
    :: else
    fi;
    /* Start: refused after init's end (container X init process is not running). */
    if
    :: atomic { (i == 0 && state[0] == CREATED && !has_ended[0]) ||
#ifdef BREAK_REFUSE
                i > 0 ->
#else
                (i > 0 && is_created && state[0] != STOPPED && !has_ended[0]) ->
#endif
                is_launching[i] = true }
        if
        /* The runtime did it: an exec has a process now, which may have ended already. */
        :: atomic { i > 0 && can_exec -> alive[i] = true; if :: stays[i] = true :: stays[i] = false fi }
        :: atomic { i > 0 && !can_exec -> start_failed[i] = true }
        :: atomic { i == 0 }
        fi;
        atomic {
            is_launching[i] = false;
            if
            :: start_failed[i] -> skip
            :: else -> state[i] = RUNNING; publish_start(i); end_late(i)
            fi;
            settle()
        }
    :: atomic { has_ended[0] -> skip } /* refused, or nobody ever asks */
    fi
}

/* reaper: a readable pidfd. The record is written, then whatever may be told is told. */
active proctype shim()
{
    byte i;
    do
    :: atomic { is_dead[0] && !has_ended[0] -> has_ended[0] = true; settle() }
    :: atomic { is_dead[1] && !has_ended[1] -> has_ended[1] = true; settle() }
    :: atomic { is_dead[2] && !has_ended[2] -> has_ended[2] = true; settle() }
    od
}

init {
    atomic { run process(0); run process(1); run process(2) }
}

ltl init_exit_always_published { [] (is_dead[0] -> <> exit_published[0]) }
