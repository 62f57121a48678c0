"""Write an integer network as a Verilog module of combinational logic."""
