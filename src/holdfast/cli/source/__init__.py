"""Reading the source of workflows for what cannot replay.

    walk      which functions: the workflows, and plain functions of the same package that they reach
    function  one function's syntax tree: what it calls, iterates over and refers to
    meaning   what a name or an expression stands for, in the modules as they were imported
    rules     what differs from replay to replay, and what to write instead

Nothing is executed: names are looked up in modules that are imported already, attributes statically. Where it is not
certain what an expression stands for, nothing is said: a false alarm costs more than what it would find.
"""
