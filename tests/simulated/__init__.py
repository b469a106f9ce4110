"""A simulator of the bad days: workers, a broker and everything that goes wrong, in one process.

    loop       an event loop whose scheduler draws from a seed; processes that die or freeze
    broker     logs with transactions, fencing and compaction, and one consumer group
    clients    producer and consumer with the methods of aiokafka's that the engine uses
    worker     what the engine's worker does around its shells, without Faust
    cases      readings logs with the truth about them, computed one reading at a time
    faults     what goes wrong, and when
    schedule   one seed: draw, play to the end, compare with the truth

`python -m tests.simulated --seed N` plays one schedule again, step by step the same.
"""
