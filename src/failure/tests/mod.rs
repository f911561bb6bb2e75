mod failing;
