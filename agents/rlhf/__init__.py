"""The RLHF pipeline: what is run (settings), the stages and their folders, evaluation, the report. Needs the extra
``lm``.

The parts that do the work stand in ``agents.lm`` and ``agents.ppo``; here they are only put in order.
"""
